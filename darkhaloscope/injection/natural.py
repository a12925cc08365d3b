"""The natural prior: lenses as heavy as their hosts, and sources as the sky has them.

Instead of a grid: theta_E from the host's velocity dispersion and the two redshifts, weighted by the
cross-section for lensing; the deflector's shape from the host's light; sources from the number counts,
redshifts and sizes of faint galaxies. Every host gets its arcs: hosts are not weighted. A source position
uniform within f theta_E has, for a round lens, a magnification of at least 2 / f: `max_offset_over_theta_e`
of 0.67 is a floor of 3; 1.5 and more cover the whole plane that is ever doubly imaged.

Stand-ins for what sweeps lack: the host's redshift is that of the red sequence at its colour, its velocity
dispersion that of the Faber-Jackson relation; both with scatter.
"""

from __future__ import annotations

import numpy as np
from scipy.special import gammainc, gammaincinv

from darkhaloscope.draws import normals, uniforms
from darkhaloscope.experiment import Experiment

UNIFORM_STREAM, NORMAL_STREAM, CANDIDATE_STREAM = 5, 6, 7  # and 8
CANDIDATES = 16

# Redshift of the red sequence, a polynomial in dereddened r - z (DECam): fitted to the spectroscopic redshifts
# of 602 lens candidates of Stein et al. (2022, ApJ 932, 107), robust scatter 0.026.
REDSHIFT_OF_R_Z = (-1.3931, 3.5780, -2.2606, 0.5238)
REDSHIFT_SCATTER, REDSHIFT_RANGE = 0.026, (0.1, 0.9)

# Faber-Jackson relation, log10(sigma / km/s) = 0.035 - 0.1 M_z: slope of L^(1/4), zero point and scatter of
# 34 DES luminous red galaxies; M_z from the dereddened z magnitude, no K correction. Bernardi et al.
# (2003, AJ 125, 1849) find the same scatter.
LOG_SIGMA_ZERO, LOG_SIGMA_SLOPE, LOG_SIGMA_SCATTER = 0.035, -0.1, 0.071
SIGMA_RANGE = (100.0, 420.0)  # km/s

COUNT_SLOPE = (
    0.32  # d log10 N / d mag in r: Metcalfe et al. (2001, MNRAS 323, 795) have 0.37 flattening to 0.26
)
MIN_BEHIND = 0.1  # of redshift, source behind lens
SIZE_AT_24_5, SIZE_SLOPE, SIZE_SCATTER = (
    0.15,
    -0.1,
    0.35,
)  # arcsec, log10 per mag, ln: COSMOS through our builder
SIZE_RANGE = (0.04, 0.8)
Q_LIGHT_SCATTER, PHI_LIGHT_SCATTER_RAD = 0.08, np.deg2rad(10.0)
LENS_Q_RANGE = (0.3, 1.0)
SHEAR_SCALE, MAX_SHEAR = 0.03, 0.15  # Rayleigh
SPEED_OF_LIGHT, HUBBLE, OMEGA_M = 299_792.458, 70.0, 0.3  # km/s, km/s/Mpc; flat
ARCSEC_PER_RAD = 206_264.806

Columns = dict[str, np.ndarray]


def natural_arcs(ids: list[str], hosts: Columns, experiment: Experiment) -> Columns:
    """Return theta_E, deflector shape, shear and analytic source of each row.

    Args:
        ids: draw ids of the rows.
        hosts: mag_dered_r, mag_dered_z, shape_e1, shape_e2 (NaN where unknown) of each row's host.
        experiment: magnitude range of the sources.

    Returns:
        theta_e_arcsec, lens_q, lens_phi_rad, shear, src_dmag, src_reff_arcsec, src_e: (n,) float64, rounded
        to 1e-6 so that the last bits of a machine's logarithm do not reach the manifest. NaN for a host
        without magnitudes.
    """
    u, z = uniforms(ids, UNIFORM_STREAM, 4), normals(ids, NORMAL_STREAM, 4)
    r, host_z = (np.asarray(hosts[f"mag_dered_{b}"], np.float64) for b in "rz")
    z_lens = np.clip(red_sequence_redshift(r - host_z) + REDSHIFT_SCATTER * z[:, 0], *REDSHIFT_RANGE)
    theta_e, source_r = _lens_and_source(ids, host_z, z_lens, experiment)
    lens_q, lens_phi = shape_of_light(hosts["shape_e1"], hosts["shape_e2"], u[:, :2], z[:, 1:3])
    size = SIZE_AT_24_5 * 10 ** (SIZE_SLOPE * (source_r - 24.5)) * np.exp(SIZE_SCATTER * z[:, 3])
    found = {
        "theta_e_arcsec": theta_e,
        "lens_q": lens_q,
        "lens_phi_rad": lens_phi,
        "shear": np.minimum(SHEAR_SCALE * np.sqrt(-2 * np.log(u[:, 2])), MAX_SHEAR),
        "src_dmag": source_r - r,
        "src_reff_arcsec": np.clip(size, *SIZE_RANGE),
        "src_e": (0.7 - 0.7 * u[:, 3]) / (1.3 + 0.7 * u[:, 3]),  # (1-q)/(1+q), q uniform in 0.3 to 1
    }
    return {name: values.round(6) for name, values in found.items()}


def _lens_and_source(
    ids: list[str], host_z: np.ndarray, z_lens: np.ndarray, experiment: Experiment
) -> tuple[np.ndarray, np.ndarray]:
    """Return theta_E in arcsec and the source's r magnitude, (n,) each.

    Heavy galaxies and distant sources lens more often: of 16 draws of velocity dispersion, source magnitude
    and redshift one is taken with a probability proportional to its cross-section, theta_E^2.
    """
    u = uniforms(ids, CANDIDATE_STREAM, 2 * CANDIDATES + 1)
    scatter = normals(ids, CANDIDATE_STREAM + 1, CANDIDATES)
    sigma = velocity_dispersion(host_z, z_lens)[:, None] * 10 ** (LOG_SIGMA_SCATTER * scatter)
    injection = experiment.injection
    source_r = source_magnitude(u[:, :CANDIDATES], injection.src_r_bright, injection.src_r_faint)
    z_source = source_redshift(u[:, CANDIDATES:-1], source_r, z_lens[:, None] + MIN_BEHIND)
    theta_e = einstein_radius(np.clip(sigma, *SIGMA_RANGE), z_lens[:, None], z_source)
    weight = np.cumsum(theta_e**2, axis=1)
    chosen = np.argmax(weight >= u[:, -1:] * weight[:, -1:], axis=1)
    rows = np.arange(len(ids))
    return theta_e[rows, chosen], source_r[rows, chosen]


def red_sequence_redshift(r_z: np.ndarray) -> np.ndarray:
    """Return the redshift at which the red sequence has dereddened r - z; trusted for 0.6 to 1.7 mag."""
    return np.polynomial.polynomial.polyval(np.clip(r_z, 0.5, 1.8), REDSHIFT_OF_R_Z)


def velocity_dispersion(mag_z: np.ndarray, redshift: np.ndarray) -> np.ndarray:
    """Return the mean velocity dispersion, km/s, of a red galaxy of dereddened z magnitude and redshift."""
    luminosity_distance = (1 + redshift) * comoving_distance(redshift)
    absolute = mag_z - 5 * np.log10(luminosity_distance * 1e5)  # Mpc in units of 10 pc
    return 10 ** (LOG_SIGMA_ZERO + LOG_SIGMA_SLOPE * absolute)


def comoving_distance(redshift: np.ndarray) -> np.ndarray:
    """Return the line-of-sight comoving distance in Mpc, flat universe with H0 70, Omega_m 0.3."""
    grid = np.linspace(0.0, 12.0, 6001)
    inverse = 1 / np.sqrt(OMEGA_M * (1 + grid) ** 3 + 1 - OMEGA_M)
    steps = np.concatenate([[0.0], np.cumsum((inverse[1:] + inverse[:-1]) / 2 * np.diff(grid))])
    return np.interp(redshift, grid, steps) * SPEED_OF_LIGHT / HUBBLE


def einstein_radius(sigma: np.ndarray, z_lens: np.ndarray, z_source: np.ndarray) -> np.ndarray:
    """Return theta_E = 4 pi (sigma / c)^2 D_ls / D_s in arcsec (isothermal sphere; D_ls / D_s of a flat universe).

    Args:
        sigma: velocity dispersion, km/s.
        z_lens: redshift of the lens.
        z_source: redshift of the source, larger.
    """
    ratio = 1 - comoving_distance(z_lens) / comoving_distance(z_source)
    return 4 * np.pi * (sigma / SPEED_OF_LIGHT) ** 2 * ratio * ARCSEC_PER_RAD


def source_magnitude(u: np.ndarray, bright: float, faint: float) -> np.ndarray:
    """Return unlensed r magnitudes with dN/dm ~ 10^(0.32 m) between `bright` and `faint`, from uniform draws."""
    low, high = 10 ** (COUNT_SLOPE * bright), 10 ** (COUNT_SLOPE * faint)
    return np.log10(low + u * (high - low)) / COUNT_SLOPE


def source_redshift(u: np.ndarray, mag_r: np.ndarray, above: np.ndarray) -> np.ndarray:
    """Return redshifts beyond `above` of galaxies of a magnitude, from uniform draws.

    p(z) ~ z^2 exp(-z / z0), z0 = 0.0417 m - 0.744 (LSST Science Book 2009, arXiv:0912.0201, eq. 3.8, there for
    i; r is taken for it, faint blue galaxies having r - i near 0.2).
    """
    z0 = 0.0417 * mag_r - 0.744
    below = gammainc(3.0, above / z0)
    return z0 * gammaincinv(3.0, below + np.minimum(u, 1 - 1e-9) * (1 - below))


def shape_of_light(
    e1: np.ndarray, e2: np.ndarray, u: np.ndarray, scatter: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the deflector's axis ratio and angle from +x: those of the host's light, with scatter.

    Catalogue ellipticities: |e| = (1-q)/(1+q), position angle atan2(e2, e1) / 2 from north through east
    (legacysurvey.org/dr10/catalogs). In a coadd north is +y and east -x: 90 degrees on from +x.

    Args:
        e1, e2: (n,) ellipticity components; NaN where unknown (then any shape: `u`).
        u: (n, 2) uniform draws.
        scatter: (n, 2) normal draws.
    """
    e1, e2 = np.asarray(e1, np.float64), np.asarray(e2, np.float64)
    known = np.isfinite(e1 + e2)
    e = np.minimum(np.hypot(e1, e2), 0.9)
    q = np.where(known, (1 - e) / (1 + e), 0.5 + 0.5 * u[:, 0]) + Q_LIGHT_SCATTER * scatter[:, 0]
    angle = np.where(known, np.arctan2(e2, e1) / 2 + np.pi / 2, np.pi * u[:, 1])
    return np.clip(q, *LENS_Q_RANGE), (angle + PHI_LIGHT_SCATTER_RAD * scatter[:, 1]) % np.pi
