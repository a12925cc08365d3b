"""The arc of a row, without noise: what 4c adds, and what can be taken away again.

A stamp row holds all that its arc depends on (parameters, host position and PSF width as stored), so
`arc_of` repeats the very pixels that `make_stamps` rendered.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa

from darkhaloscope.experiment import Experiment
from darkhaloscope.injection.keys import draw_ids
from darkhaloscope.injection.psfs import load_kernels, psf_of
from darkhaloscope.lensing.pixelised import SourceImages
from darkhaloscope.lensing.render import Rendered, render
from darkhaloscope.lensing.scene import Scene
from darkhaloscope.pack.packing import pixels_of
from darkhaloscope.records import BANDS, NO_SOURCE, PIXEL_SCALE_ARCSEC, REFERENCE, STAMPS
from darkhaloscope.schema import check_schema
from darkhaloscope.sources.bank import Bank, SourceIndex
from darkhaloscope.sources.draw import mirrored
from darkhaloscope.sources.open import open_bank
from darkhaloscope.survey.extinction import transmission
from darkhaloscope.survey.photometry import flux

ARC_COLUMNS = (
    "theta_e_arcsec", "lens_q", "lens_phi_rad", "shear", "shear_phi_rad", "src_x_arcsec", "src_y_arcsec",
    "src_reff_arcsec", "src_e", "src_phi_rad", "src_n", "src_mag_g", "src_mag_r", "src_mag_z", "ebv",
    "host_x", "host_y", "fwhm_g", "fwhm_r", "fwhm_z",
    "source_kind", "source_id", "host_id", "replicate", "config_id",
)  # fmt: skip
"""Columns an arc depends on; the last three key the draw of an image's mirroring."""


def source_flux(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return unlensed source flux as observed through the Galaxy, (n, band) nmgy: src_mag reddened by ebv."""
    intrinsic = np.stack([flux(columns[f"src_mag_{b}"]) for b in BANDS], axis=1)
    return intrinsic * transmission(columns["ebv"], BANDS)


def scene_of(columns: Mapping[str, np.ndarray]) -> Scene:
    """Return the renderer's scene of rows with `ARC_COLUMNS`; the deflector is at (host_x, host_y)."""
    ellipticity = np.asarray(columns["src_e"], np.float64)
    return Scene(
        x_lens=columns["host_x"],
        y_lens=columns["host_y"],
        src_q=(1 - ellipticity) / (1 + ellipticity),
        flux=source_flux(columns),
        **{n: columns[n] for n in ARC_COLUMNS[:8]},
        src_phi_rad=columns["src_phi_rad"],
        src_n=columns["src_n"],
    )


def render_rows(
    columns: Mapping[str, np.ndarray], experiment: Experiment, kernels: np.ndarray | None, bank: Bank | None
) -> Rendered:
    """Render the arcs of rows with `ARC_COLUMNS`: image (n, band, y, x) float32, nmgy/pixel.

    A galaxy with a colour gradient is the sum of its layers, each with its own flux per band. A row of a catalogue has
    no source: its image is 0 and its magnification NaN.
    """
    lit = np.asarray(columns["source_kind"], object) != NO_SOURCE
    if not lit.all():
        return _with_dark_rows(columns, lit, experiment, kernels, bank)
    fwhm = np.stack([np.asarray(columns[f"fwhm_{b}"], np.float64) for b in BANDS], axis=1)
    psf, scene = psf_of(fwhm, experiment, kernels), scene_of(columns)
    size = experiment.stamps.size
    done = []
    for images, share in _layers(columns, experiment, bank):
        layer = replace(scene, flux=scene.flux * share)
        made = render(layer, psf, (size, size), PIXEL_SCALE_ARCSEC, images)
        done.append(replace(made, magnification=made.magnification * share[:, REFERENCE]))
    # The renderer counts rows within its batch; a row's reason must not depend on its neighbours.
    reasons = [tuple(re.sub(r"^row \d+: ", "", reason) for reason in made.reason) for made in done]
    return Rendered(
        image=np.sum([made.image for made in done], axis=0, dtype=np.float32),
        magnification=np.sum([made.magnification for made in done], axis=0),
        ok=np.all([made.ok for made in done], axis=0),
        reason=tuple(next(filter(None, found), "") for found in zip(*reasons, strict=True)),
        rays=np.sum([made.rays for made in done], axis=0),
    )


def _with_dark_rows(
    columns: Mapping[str, np.ndarray], lit: np.ndarray, experiment: Experiment, kernels: np.ndarray | None,
    bank: Bank | None,
) -> Rendered:  # fmt: skip
    n, size, at = len(lit), experiment.stamps.size, np.flatnonzero(lit)
    image, magnification = np.zeros((n, len(BANDS), size, size), np.float32), np.full(n, np.nan)
    ok, reason, rays = np.ones(n, bool), np.full(n, "", object), np.zeros(n, np.int64)
    if len(at):
        some = render_rows({k: v[at] for k, v in columns.items()}, experiment, kernels, bank)
        image[at], magnification[at], ok[at] = some.image, some.magnification, some.ok
        reason[at], rays[at] = some.reason, some.rays
    return Rendered(image, magnification, ok, tuple(reason.tolist()), rays)


def _layers(
    columns: Mapping[str, np.ndarray], experiment: Experiment, bank: Bank | None
) -> list[tuple[SourceImages | None, np.ndarray]]:
    """Return the sources of rows as layers, with each layer's share of the flux per band, (n, band)."""
    source_id = np.asarray(columns["source_id"], np.int64)
    pictured = source_id >= 0
    if not pictured.any():
        return [(None, np.ones((len(source_id), len(BANDS))))]
    bank = open_bank(experiment.injection.source_bank) if bank is None else bank
    used, where = np.unique(source_id, return_inverse=True)
    used, where = used[used >= 0], where - int(used[0] < 0)
    host, replicate, config = (np.asarray(columns[n]) for n in ("host_id", "replicate", "config_id"))
    flip = mirrored(draw_ids(host, replicate, config, experiment))
    return image_layers(columns, where, bank.layers(used), bank.index, flip)


def image_layers(
    columns: Mapping[str, np.ndarray],
    stamp: np.ndarray,
    stacked: list[tuple[np.ndarray, np.ndarray]],
    index: SourceIndex,
    flip: np.ndarray,
) -> list[tuple[SourceImages | None, np.ndarray]]:
    """Return the sources of rows as layers, with each layer's share of the flux per band, (n, band).

    Args:
        columns: source_id and src_reff_arcsec, (n,).
        stamp: (n,) each row's place in the stacks, -1 for a Sersic source.
        stacked: the bank's layers, see `Bank.layers`.
        index: the bank's galaxies.
        flip: (n,) whether a row's image is mirrored.
    """
    source_id, pictured = np.asarray(columns["source_id"], np.int64), stamp >= 0
    # the size in the row is the galaxy's own; the image shows it as the telescope blurred it
    scale = np.ones(len(stamp))
    shown = index.hlr_image_arcsec[source_id[pictured]]
    scale[pictured] = index.pixel_arcsec * columns["src_reff_arcsec"][pictured] / shown
    layers: list[tuple[SourceImages | None, np.ndarray]] = []
    for number, (stamps, share) in enumerate(stacked):
        shares = np.full((len(stamp), len(BANDS)), float(number == 0))  # analytic rows: all in the first
        shares[pictured] = share[stamp[pictured]]
        layers.append((SourceImages(stamps, stamp, scale, flip), shares))
    return layers


def arc_of(
    rows: pa.Table | pa.RecordBatch,
    experiment: Experiment,
    kernels: np.ndarray | None = None,
    bank: Bank | None = None,
) -> np.ndarray:
    """Render the noiseless arcs of stamp rows again.

    Args:
        rows: STAMPS rows (only `ARC_COLUMNS` and cutout_ok are read).
        experiment: the experiment that made them.
        kernels: PSF kernels (band, ky, kx); read from `psf.kernel` where the model needs them and None.
        bank: source bank; the experiment's is opened where rows need it and this is None.

    Returns:
        (n, band, y, x) float32, nmgy/pixel. For a control: the virtual arc, which its stamp does not hold.
        Zero for rows without a stamp.

    Raises:
        SchemaError: a column is missing.
    """
    needed = [*ARC_COLUMNS, "cutout_ok"]
    check_schema(STAMPS, rows.schema, "stamps", needed)
    made = np.asarray(rows.column("cutout_ok").to_numpy(zero_copy_only=False)) == 1
    columns = {n: np.asarray(rows.column(n).to_numpy(zero_copy_only=False))[made] for n in ARC_COLUMNS}
    image = np.zeros((rows.num_rows, len(BANDS), experiment.stamps.size, experiment.stamps.size), np.float32)
    if made.any():
        kernels = load_kernels(experiment) if kernels is None else kernels
        image[made] = render_rows(columns, experiment, kernels, bank).image
    return image


def added_light(
    rows: pa.Table | pa.RecordBatch,
    experiment: Experiment,
    kernels: np.ndarray | None = None,
    bank: Bank | None = None,
    arcs: np.ndarray | None = None,
) -> np.ndarray:
    """Return the light that 4c added to each stamp, noise aside: stamp minus this is the coadd.

    The arc for an injection, zero for a control, and zero on blank pixels (exactly 0 in the stamp: no data,
    so nothing was added). Arguments, shape and errors as `arc_of`; `rows` needs stamp and is_control too. `arcs`:
    what `arc_of` returned for these rows, to spare rendering them again.
    """
    check_schema(STAMPS, rows.schema, "stamps", ["stamp", "is_control"])
    light = arc_of(rows, experiment, kernels, bank) if arcs is None else arcs.copy()
    light[rows.column("is_control").to_numpy(zero_copy_only=False) == 1] = 0
    there = np.asarray(rows.column("stamp").is_valid())
    blank = pixels_of(rows.filter(pa.array(there))) == 0
    light[there] = np.where(blank, 0, light[there])
    return light
