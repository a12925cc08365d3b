"""Stage 4a: the manifest, one row a stamp to make.

`lay_out_injections` maps each target row to its manifest rows without looking at any other row, so it gives
the same rows in any partition. A row's draws are keyed by (seed, host, replicate, configuration), not by the
experiment: experiments that differ only in the PSF draw the same arcs on the same hosts, and the two rows of
a pair share one configuration. `task_id` is keyed by everything that defines the stamp.

Tiers: `train`: each host draws a configuration per replicate. `grid`: each host gets every configuration,
with drawn geometry and colours. `debug`: every configuration, with a round lens, no shear and the source on
the axis, so that each stamp is a ring of radius theta_E that can be checked by eye. With the natural prior
(tier `train`) there is no configuration, and `config_id` is -1: see `prior`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from darkhaloscope.draws import Keys, digest, digests, hex_digits, uniforms
from darkhaloscope.experiment import Experiment
from darkhaloscope.injection.colours import frozen_colours
from darkhaloscope.injection.grids import AXES, axes_of, configurations, n_configurations
from darkhaloscope.injection.hosts import control_row, is_control_host, refuse_repeats
from darkhaloscope.injection.keys import draw_ids, enumerated
from darkhaloscope.injection.prior import COLUMNS, NEEDED, draw_prior
from darkhaloscope.records import HOST, MANIFEST, TARGETS
from darkhaloscope.schema import check_schema, to_batch
from darkhaloscope.sources.bank import SourceIndex
from darkhaloscope.sources.draw import draw_sources
from darkhaloscope.sources.open import open_bank

GEOMETRY_STREAM = 1
LENS_E_RANGE = (0.05, 0.45)  # uniform, as in the earlier generations

HOST_NAMES = tuple(c.name for c in HOST)

Columns = dict[str, np.ndarray]


def lay_out_injections(
    targets: pa.Table | pa.RecordBatch, experiment: Experiment, sources: SourceIndex | None = None
) -> pa.RecordBatch:
    """Return the MANIFEST rows of some targets.

    Unpaired controls: a host is a control, and makes one row, or a positive, by hash. Paired: every injection
    has a control of the same host with the same (virtual) configuration, and each names the other in
    `partner_task_id`.
    Controls carry the injection their host would have had in the same columns as positives.

    Args:
        targets: TARGETS rows, each host once; any subset and order of them.
        experiment: grid, tier, controls, seed, kind of source.
        sources: galaxies of the source bank, for image sources; None opens the experiment's bank.

    Raises:
        SchemaError: `targets` lacks a column.
        ValueError: a host occurs twice, or is in a split without sources.
    """
    needed = [*HOST_NAMES, *NEEDED]
    check_schema(TARGETS, targets.schema, "targets", needed)
    host_id = np.asarray(targets.column("host_id").to_numpy())
    refuse_repeats(host_id)
    host, replicate, config_id = _expand(host_id, experiment)
    ids = draw_ids(host_id[host], replicate, config_id, experiment)
    light: Columns = {n: np.asarray(targets.column(n).to_numpy(zero_copy_only=False))[host] for n in NEEDED}
    split = np.asarray(targets.column("region_split").to_numpy(zero_copy_only=False))[host]
    image = experiment.injection.source == "image"
    sources = open_bank(experiment.injection.source_bank).index if image and sources is None else sources
    columns = draw_injections(
        ids, light, split, experiment, sources, config_id if enumerated(experiment) else None
    )
    columns["replicate"] = replicate
    bank = sources.digest if image and sources is not None else ""
    named, row = _with_controls(columns, host_id[host], experiment, bank)
    there = pa.array(host[row])
    taken = {n: targets.column(n).take(there) for n in HOST_NAMES}
    return to_batch(MANIFEST, {n: v[row] for n, v in columns.items()} | named | taken)


def draw_injections(
    ids: Keys,
    light: Mapping[str, np.ndarray],
    split: np.ndarray,
    experiment: Experiment,
    sources: SourceIndex | None,
    config_id: np.ndarray | None = None,
) -> Columns:
    """Draw a lens and a source for each row by the experiment's prior: what a manifest, or an epoch, injects.

    Args:
        ids: n keys of the draws; rows of one key and host are equal.
        light: `prior.NEEDED` columns of each row's host, (n,).
        split: (n,) of each row's host: its source is a galaxy of the same split.
        experiment: grid or natural prior, kind of source.
        sources: galaxies of the source bank, for image sources.
        config_id: (n,) configurations of the grid; None: each row draws its own.

    Returns:
        config_id, and the columns of records.INJECTION from source_id on, (n,).
    """
    if experiment.injection.prior == "natural":
        config_id = np.full(len(ids), -1)
        columns = _natural(ids, light, experiment)
    else:
        config_id = _draw_configuration(ids, experiment) if config_id is None else config_id
        columns = _arcs(ids, config_id, experiment)
    if experiment.injection.source == "image":
        if sources is None:
            raise ValueError("injection.source is 'image' and no source bank was given")
        columns |= _image_sources(ids, columns, split, sources)
    else:
        sources = None
    return columns | _magnitudes(ids, columns, light["mag_dered_r"], sources) | {"config_id": config_id}


def _expand(host_id: np.ndarray, experiment: Experiment) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (host index, replicate, config_id; 0 where it is drawn later) of every injection.

    An unpaired control is the virtual host of one injection only.
    """
    per_host = experiment.injection.replicates
    n_configs = n_configurations(experiment.injection) if enumerated(experiment) else 1
    host, config, replicate = (
        a.ravel() for a in np.meshgrid(np.arange(len(host_id)), np.arange(n_configs), np.arange(per_host),
                                       indexing="ij")
    )  # fmt: skip
    if experiment.injection.controls == "paired":
        return host, replicate, config
    of_host = np.arange(len(host)) % (n_configs * per_host)
    kept = ~is_control_host(host_id, experiment)[host] | (of_host == control_row(host_id, experiment)[host])
    return host[kept], replicate[kept], config[kept]


def _draw_configuration(ids: Keys, experiment: Experiment) -> np.ndarray:
    n = n_configurations(experiment.injection)
    return np.minimum((uniforms(ids, GEOMETRY_STREAM, 7)[:, 6] * n).astype(np.int64), n - 1)


def _arcs(ids: Keys, config_id: np.ndarray, experiment: Experiment) -> Columns:
    """Return lens and (analytic) source columns: those of the grid, and the frozen draws."""
    injection = experiment.injection
    grid = configurations(injection)
    columns: Columns = {axis: grid[axis][config_id] for axis in AXES}
    columns |= _geometry(ids, columns["theta_e_arcsec"], experiment)
    if injection.tier == "debug":
        columns["shear"] = np.zeros(len(ids))
    return columns | _analytic(len(ids), experiment)


def _natural(ids: Keys, light: Mapping[str, np.ndarray], experiment: Experiment) -> Columns:
    """Return lens and (analytic) source columns of the natural prior."""
    drawn = draw_prior(light, ids, experiment.prior)
    return _analytic(len(ids), experiment) | {name: drawn[name] for name in COLUMNS}


def _analytic(n: int, experiment: Experiment) -> Columns:
    return {
        "src_n": np.full(n, experiment.injection.src_n),
        "source_id": np.full(n, -1, np.int64),
    }


def _image_sources(ids: Keys, columns: Columns, split: np.ndarray, sources: SourceIndex) -> Columns:
    """Return the columns that an image has instead of the grid's: its own size and shape, and any rotation."""
    source_id = draw_sources(sources, ids, split)
    q = sources.axis_ratio[source_id].astype(np.float64)
    return {
        "source_id": source_id,
        "src_reff_arcsec": sources.hlr_arcsec[source_id].astype(np.float64),
        "src_e": (1 - q) / (1 + q),
        "src_n": np.zeros(len(ids)),  # no Sersic index
        "src_phi_rad": 2 * columns["src_phi_rad"],
    }


def _magnitudes(ids: Keys, columns: Columns, host_r: np.ndarray, sources: SourceIndex | None) -> Columns:
    """Return source magnitudes outside the Galaxy: the host's r plus dmag; a galaxy's own colours where known."""
    if "src_mag_r" in columns:
        g_r, r_z = columns["src_mag_g"] - columns["src_mag_r"], columns["src_mag_r"] - columns["src_mag_z"]
    else:
        g_r, r_z = frozen_colours(ids)
    if sources is not None:
        own = np.stack([sources.g_r, sources.r_z])[:, columns["source_id"]].astype(np.float64)
        g_r, r_z = np.where(np.isfinite(own).all(axis=0), own, [g_r, r_z])
    r = host_r.astype(np.float64) + columns["src_dmag"]
    return {"src_mag_g": r + g_r, "src_mag_r": r, "src_mag_z": r - r_z}


def _geometry(ids: Keys, theta_e: np.ndarray, experiment: Experiment) -> Columns:
    """Return lens shape, angles and source position; the position is uniform in area within its circle."""
    u = uniforms(ids, GEOMETRY_STREAM, 6)
    lens_e = LENS_E_RANGE[0] + (LENS_E_RANGE[1] - LENS_E_RANGE[0]) * u[:, 0]
    offset = experiment.injection.max_offset_over_theta_e * theta_e * np.sqrt(u[:, 1])
    if experiment.injection.tier == "debug":
        lens_e, offset = np.zeros(len(ids)), np.zeros(len(ids))
    return {
        "lens_q": (1 - lens_e) / (1 + lens_e),
        "lens_phi_rad": np.pi * u[:, 2],
        "shear_phi_rad": np.pi * u[:, 3],
        "src_phi_rad": np.pi * u[:, 4],
        # rounded: sine and cosine differ in the last bit between machines, the manifest must not
        "src_x_arcsec": (offset * np.cos(2 * np.pi * u[:, 5])).round(6),
        "src_y_arcsec": (offset * np.sin(2 * np.pi * u[:, 5])).round(6),
    }


def _with_controls(
    columns: Columns, host_id: np.ndarray, experiment: Experiment, bank: str
) -> tuple[dict[str, Any], np.ndarray]:
    """Assign each injection to its class (unpaired) or give each a control (paired), and name the rows.

    Returns the columns that say so, and which injection each row has.
    """
    row = np.arange(len(host_id))
    if experiment.injection.controls == "paired":
        row = np.repeat(row, 2)
        control = np.arange(len(row)) % 2 == 1
    else:
        control = is_control_host(host_id, experiment)
    keys = [
        _task_keys(columns, host_id, k, experiment, bank) for k in ("none", experiment.injection.controls)
    ]
    own, partner = (np.where(c[:, None], keys[1][row], keys[0][row]) for c in (control, ~control))
    paired = experiment.injection.controls == "paired"
    named = {
        "experiment_id": pa.repeat(experiment.experiment_id, len(row)),
        "task_id": id_strings(own),
        "partner_task_id": id_strings(partner) if paired else pa.repeat("", len(row)),
        "is_control": control.astype(np.int8),
        "control_kind": _either(control, experiment.injection.controls, "none"),
        "label": (~control).astype(np.int8),
        "sample": _either(control, "random_negative", "synthetic_positive"),
        "source_kind": pa.repeat(experiment.injection.source, len(row)),
        "object_type": pa.repeat("", len(row)),
        "object_name": pa.repeat("", len(row)),
    }
    return named, row


def _either(condition: np.ndarray, true: str, false: str) -> pa.Array:
    return pa.DictionaryArray.from_arrays(condition.astype(np.int8), [false, true]).cast(pa.string())


def _task_keys(
    columns: Mapping[str, np.ndarray],
    host_id: np.ndarray,
    control_kind: str,
    experiment: Experiment,
    bank: str,
) -> Keys:
    """Return a digest of what defines each stamp: row inputs, and the config that decides its pixels."""
    injection, stamps = experiment.injection, experiment.stamps
    grid = axes_of(injection) if injection.grid == "custom" else injection.grid
    shared = (
        experiment.experiment_id, experiment.digest("seed", "psf"), stamps.size, stamps.poisson_noise,
        injection.tier, injection.prior, grid, injection.source, bank, injection.src_n,
        injection.max_offset_over_theta_e, control_kind,
        experiment.digest("prior") if injection.prior == "natural" else "",
    )  # fmt: skip
    numbers = (columns[n] for n in ("replicate", "config_id", "source_id"))
    return digests(digest("task", *shared), host_id, *numbers)


def id_strings(keys: Keys) -> pa.Array:
    """Return ids as an Arrow array of strings of 32 hex digits."""
    offsets = np.arange(0, 32 * len(keys) + 1, 32, dtype=np.int32)
    return pa.StringArray.from_buffers(len(keys), pa.py_buffer(offsets), pa.py_buffer(hex_digits(keys)))
