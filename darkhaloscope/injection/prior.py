"""The natural prior: lenses as heavy as their hosts make them, and sources as the sky has them.

For each host: its redshift (stage 3's), its velocity dispersion from its luminosity
(`host_mass`); for each source: unlensed r magnitude, type, redshift, size, shape and colours (`populations`); from both
the Einstein radius (`cosmology`); then a source position by its magnification (`magnification`). Every draw is a
function of the row's id.

`weighting = "lenses"` draws what lensed pairs are: a host and a source meet with a probability proportional to the
area theta_E^2 that the host covers in the source plane, so heavier dispersions within the scatter, and sources farther
behind, are likelier than among all galaxies. It does not weigh one host against another: each host gets its rows.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from darkhaloscope.config import ConfigError
from darkhaloscope.draws import Ids, normals, uniforms
from darkhaloscope.injection import host_mass, populations
from darkhaloscope.injection.cosmology import distance_ratio, einstein_radius
from darkhaloscope.injection.magnification import Lenses, point_magnification, reach, tangential_caustic
from darkhaloscope.injection.rejection import STREAMS, Propose, first_accepted
from darkhaloscope.sections import Prior

UNIFORM_STREAM, NORMAL_STREAM = 10, 11
SOURCE_STREAM = 32
POSITION_STREAM = SOURCE_STREAM + STREAMS

NEEDED = ("mag_dered_r", "mag_dered_z", "shape_e1", "shape_e2", "z_host")
COLUMNS = (
    "theta_e_arcsec", "lens_q", "lens_phi_rad", "shear", "shear_phi_rad", "src_x_arcsec", "src_y_arcsec",
    "src_dmag", "src_reff_arcsec", "src_e", "src_phi_rad", "src_n", "src_mag_g", "src_mag_r", "src_mag_z",
)  # fmt: skip
"""Columns of records.INJECTION that `draw_prior` gives."""
PHYSICS = ("z_lens", "z_source", "sigma_v_km_s")
"""What they follow from; given beside them."""

MIN_BEHIND = 0.05  # of redshift, source behind lens
MIN_THETA_E = 0.01  # arcsec; a source right behind its lens
SHEAR_SCATTER_DEX = 0.2
DECIMALS = 6  # the last bits of a machine's logarithm do not reach the manifest

Columns = dict[str, np.ndarray]


def check_prior(prior: Prior) -> None:
    """Raise `ConfigError`, naming each setting that cannot be drawn from, what it is and what it may be."""
    faults = []
    if not 20.0 <= prior.src_r_bright < prior.src_r_faint <= 28.0:
        faults.append(
            f"src_r_bright, src_r_faint = {prior.src_r_bright}, {prior.src_r_faint}; 20 <= bright < faint <= 28"
        )
    ranges = {
        "min_magnification": (2.0, 20.0),
        "plane_radius_over_theta_e": (0.01, 20.0),
        "q_scatter": (0.0, 0.5),
        "phi_scatter_deg": (0.0, 90.0),
        "shear_median": (0.0, 0.3),
        "max_shear": (0.0, 0.3),
    }
    for name, (low, high) in ranges.items():
        if not low <= getattr(prior, name) <= high:
            faults.append(f"{name} = {getattr(prior, name)}; {low} to {high}")
    if faults:
        raise ConfigError("prior cannot be drawn from: " + "; ".join(faults))


def draw_prior(targets: Mapping[str, np.ndarray], ids: Ids, prior: Prior) -> Columns:
    """Draw a lens and a source for each row.

    Args:
        targets: TARGETS columns of each row's host, (n,): `NEEDED`. Shapes may be NaN or, in round models, 0.
        ids: n draw ids, 32 hex digits; rows of one id are equal.
        prior: settings.

    Returns:
        `COLUMNS` and `PHYSICS`, each (n,) float64, rounded to 1e-6; units of records.INJECTION, redshifts, km/s. A host
        without a redshift or an r or z magnitude has NaN throughout.

    Raises:
        ConfigError: a setting out of range.
        ValueError: a column missing or of another length than `ids`.
    """
    check_prior(prior)
    hosts = _hosts(targets, len(ids))
    u, scatter = uniforms(ids, UNIFORM_STREAM, 9), normals(ids, NORMAL_STREAM, 9)
    known = np.isfinite(hosts["mag_dered_r"] - hosts["mag_dered_z"]) & np.isfinite(hosts["z_host"])
    z_lens, sigma = _lens(hosts, known, scatter[:, 0], prior)
    drawn, _ = first_accepted(ids, SOURCE_STREAM, 3, _sources(z_lens, prior))
    mag_r, kind, z_source = drawn.T
    theta_e = np.maximum(einstein_radius(sigma, z_lens, z_source), MIN_THETA_E)
    columns = {"theta_e_arcsec": theta_e, "z_lens": z_lens, "z_source": z_source, "sigma_v_km_s": sigma}
    columns |= _deflector(hosts, sigma, u[:, 1:4], scatter[:, 1:4], prior)
    columns["src_x_arcsec"], columns["src_y_arcsec"] = theta_e * _positions(ids, columns, prior).T
    columns |= _light(mag_r, kind, z_source, u[:, 4:7], scatter[:, 4:8])
    columns["src_dmag"] = columns["src_mag_r"] - np.where(known, hosts["mag_dered_r"], 0.0)
    return {name: np.where(known, columns[name], np.nan).round(DECIMALS) for name in (*COLUMNS, *PHYSICS)}


def _hosts(targets: Mapping[str, np.ndarray], n: int) -> Columns:
    if missing := [name for name in NEEDED if name not in targets]:
        raise ValueError(
            f"drawing the natural prior: targets lack columns {missing}; needed are {list(NEEDED)}"
        )
    hosts = {name: np.asarray(targets[name], np.float64) for name in NEEDED}
    if wrong := {name: column.shape for name, column in hosts.items() if column.shape != (n,)}:
        raise ValueError(f"drawing the natural prior: {n} ids, but columns have shapes {wrong}")
    return hosts


def _lens(
    hosts: Columns, known: np.ndarray, scatter: np.ndarray, prior: Prior
) -> tuple[np.ndarray, np.ndarray]:
    """Return redshift and velocity dispersion; stand-in values where the host is not `known`."""
    redshift, mag_z = np.where(known, hosts["z_host"], 0.5), np.where(known, hosts["mag_dered_z"], 19.5)
    log_sigma = host_mass.log_velocity_dispersion(host_mass.absolute_r(mag_z, redshift))
    width = host_mass.LOG_SIGMA_SCATTER
    # sigma^4 times a lognormal is the same lognormal, moved by 4 ln(10) width^2 in log10
    shift = 4 * np.log(10) * width**2 if prior.weighting == "lenses" else 0.0
    return redshift, np.clip(10 ** (log_sigma + shift + width * scatter), *host_mass.SIGMA_RANGE)


def _sources(z_lens: np.ndarray, prior: Prior) -> Propose:
    """Return the proposals of `first_accepted`: (r magnitude, type, redshift) of the sky's galaxies behind the lens."""
    best = distance_ratio(z_lens, populations.Z_CELLS[-1] + populations.CELL)

    def propose(rows: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        mag_r = populations.magnitudes_of_counts(u[..., 0], prior.src_r_bright, prior.src_r_faint)
        kind, redshift = populations.draw_type_and_redshift(mag_r, u[..., 1])
        behind = redshift > z_lens[rows, None] + MIN_BEHIND
        share = (distance_ratio(z_lens[rows, None], np.maximum(redshift, 1e-3)) / best[rows, None]) ** 2
        accepted = behind & (u[..., 2] < share) if prior.weighting == "lenses" else behind
        return np.stack([mag_r, kind, redshift], axis=-1), accepted, np.where(behind, share, redshift - 100.0)

    return propose


def _deflector(
    hosts: Columns, sigma: np.ndarray, u: np.ndarray, scatter: np.ndarray, prior: Prior
) -> Columns:
    """Return shape and shear: the light's shape with scatter; an early-type galaxy's where the light has none."""
    q, phi, known = host_mass.shape_of_light(hosts["shape_e1"], hosts["shape_e2"])
    q = np.where(
        known,
        host_mass.follow_light(q, prior.q_scatter * scatter[:, 0]),
        host_mass.drawn_axis_ratio(sigma, u[:, 0]),
    )
    phi = np.where(known, phi + np.deg2rad(prior.phi_scatter_deg) * scatter[:, 1], np.pi * u[:, 1])
    shear = prior.shear_median * 10 ** (SHEAR_SCATTER_DEX * scatter[:, 2])
    return {
        "lens_q": q,
        "lens_phi_rad": phi % np.pi,
        "shear": np.minimum(shear, prior.max_shear),
        "shear_phi_rad": np.pi * u[:, 2],
    }


def _positions(ids: Ids, lens: Columns, prior: Prior) -> np.ndarray:
    """Return source positions, (n, 2), in units of theta_E: uniform in area over what `prior.position` admits."""
    shape = [lens[name] for name in ("lens_q", "lens_phi_rad", "shear", "shear_phi_rad")]

    def propose(rows: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if prior.position == "plane":
            radius = np.full(len(rows), prior.plane_radius_over_theta_e)
        else:
            lenses = Lenses.of(*(column[rows] for column in shape))
            radius = (
                reach(lenses)
                if prior.position == "imaged"
                else _magnified_within(lenses, prior.min_magnification)
            )
        distance, angle = radius[:, None] * np.sqrt(u[..., 0]), 2 * np.pi * u[..., 1]
        x, y = distance * np.cos(angle), distance * np.sin(angle)
        place = np.stack([x, y], axis=-1)
        if prior.position == "plane":
            return place, np.ones(x.shape, bool), np.zeros(x.shape)
        magnification, images = point_magnification(lenses, x, y)
        wanted = images >= 2 if prior.position == "imaged" else magnification >= prior.min_magnification
        return place, wanted, magnification

    return first_accepted(ids, POSITION_STREAM, 2, propose)[0]


def _magnified_within(lenses: Lenses, floor: float) -> np.ndarray:
    """Return a radius, (n,) in theta_E, beyond which no source is magnified by `floor`, with room to spare.

    A round lens magnifies by 2 / beta; shear and ellipticity stretch that contour, the farther out the
    more, and carry it along the caustic. The formula was found by trial, for q above 0.3 and shear below 0.2.
    """
    caustic = np.hypot(*tangential_caustic(lenses)).max(axis=1)
    return 2.3 / (floor - 1) + caustic


def _light(
    mag_r: np.ndarray, kind: np.ndarray, redshift: np.ndarray, u: np.ndarray, scatter: np.ndarray
) -> Columns:
    g_r, r_z = populations.colours(kind, redshift, u[:, 0], scatter[:, :2])
    q = populations.axis_ratio(u[:, 1])
    return {
        "src_mag_g": mag_r + g_r,
        "src_mag_r": mag_r,
        "src_mag_z": mag_r - r_z,
        "src_reff_arcsec": populations.half_light_radius(mag_r, scatter[:, 2]),
        "src_n": populations.sersic_index(kind, scatter[:, 3]),
        "src_e": (1 - q) / (1 + q),
        "src_phi_rad": np.pi * u[:, 2],
    }
