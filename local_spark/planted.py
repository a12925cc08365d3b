"""Plant lenses into a brick of the mini sky, drawn by lenstronomy and not by the library's own renderer.

A search that finds them was not helped by a mistake that its training set shares. Lens equation and light are
lenstronomy's, the PSF astropy's Moffat; a pixel is the light convolved with the effective PSF at the pixel's centre.
"""

from __future__ import annotations

import csv
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import fitsio
import numpy as np
from astropy.modeling.functional_models import Moffat2D
from scipy.signal import fftconvolve

from darkhaloscope.lensing.psf import moffat_alpha, psfsize_to_fwhm
from darkhaloscope.records import BANDS, PIXEL_SCALE_ARCSEC
from darkhaloscope.simulated.observing import SKY_BRIGHTNESS
from darkhaloscope.simulated.sky_plan import SkyConfig
from darkhaloscope.survey.coadds import BrickReader, file_path
from darkhaloscope.survey.photometry import flux as flux_of
from local_spark.fits_layout import STEPS_PER_SIGMA, write_plane

FINE = 5  # samples of a pixel along each axis
HALF = 32  # pixels from the host to the arc's border
COLOURS = {"g": 0.35, "r": 0.0, "z": -0.25}  # of a blue, star-forming source, AB mag against r


@dataclass(frozen=True)
class PlantedLens:
    """One planted lens: where, and what was drawn. Positions in deg, angles in rad, sizes in arcsec."""

    name: str
    ra: float
    dec: float
    theta_e_arcsec: float
    lens_q: float
    lens_phi: float
    src_x_arcsec: float
    src_y_arcsec: float
    src_reff_arcsec: float
    src_mag_r: float


def draw_lenses(hosts: dict[str, np.ndarray], count: int, seed: int) -> list[PlantedLens]:
    """Choose hosts and draw a lens on each: wide, bright arcs that a good finder should see.

    Args:
        hosts: ra, dec (deg) and mag_r of galaxies to choose from.
        count: lenses wanted; fewer where there are fewer hosts.
        seed: another seed, other lenses.
    """
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(hosts["ra"]))[:count]
    lenses = []
    for number, i in enumerate(sorted(chosen.tolist())):
        theta_e = rng.uniform(1.5, 2.5)
        radius, angle = theta_e * np.sqrt(rng.uniform(0.01, 0.25)), rng.uniform(0, 2 * np.pi)
        lenses.append(
            PlantedLens(
                f"planted {number:02d}",
                float(hosts["ra"][i]),
                float(hosts["dec"][i]),
                theta_e,
                rng.uniform(0.6, 0.95),
                rng.uniform(0, np.pi),
                radius * np.cos(angle),
                radius * np.sin(angle),
                rng.uniform(0.15, 0.3),
                float(hosts["mag_r"][i]) + rng.uniform(0.5, 1.5),
            )
        )
    return lenses


def arc(lens: PlantedLens, band: str, fwhm: float, beta: float, x: float, y: float) -> np.ndarray:
    """Return the arc, (y, x) nmgy/pixel over 2 HALF + 1 pixels, its lens x, y pixels off the middle one."""
    from lenstronomy.LensModel.lens_model import LensModel
    from lenstronomy.LightModel.light_model import LightModel
    from lenstronomy.Util.param_util import phi_q2_ellipticity

    n = (2 * HALF + 1) * FINE
    axis = ((np.arange(n) + 0.5) / FINE - HALF - 0.5) * PIXEL_SCALE_ARCSEC
    sky_x, sky_y = (
        v.ravel() for v in np.meshgrid(axis - x * PIXEL_SCALE_ARCSEC, axis - y * PIXEL_SCALE_ARCSEC)
    )
    e1, e2 = phi_q2_ellipticity(lens.lens_phi, lens.lens_q)
    deflector = [{"theta_E": lens.theta_e_arcsec, "e1": e1, "e2": e2, "center_x": 0.0, "center_y": 0.0}]
    at_source = LensModel(["SIE"]).ray_shooting(sky_x, sky_y, deflector)
    source = [{"amp": 1.0, "R_sersic": lens.src_reff_arcsec, "n_sersic": 1.0,
               "center_x": lens.src_x_arcsec, "center_y": lens.src_y_arcsec}]  # fmt: skip
    model = LightModel(["SERSIC"])
    total = float(flux_of(np.array(lens.src_mag_r + COLOURS[band])))
    brightness = model.surface_brightness(*at_source, source) * total / model.total_flux(source)[0]
    gamma = float(moffat_alpha(fwhm, beta))
    grid = np.hypot(*np.meshgrid(axis, axis))
    peak = (beta - 1) / (np.pi * gamma**2)  # of unit flux over the whole plane
    psf = Moffat2D(peak, 0.0, 0.0, gamma, beta)(grid, 0.0) * (PIXEL_SCALE_ARCSEC / FINE) ** 2
    blurred = fftconvolve(brightness.reshape(n, n), psf, mode="same")
    return blurred[FINE // 2 :: FINE, FINE // 2 :: FINE] * PIXEL_SCALE_ARCSEC**2


def plant(sky: Path, out: Path, brick: str, lenses: list[PlantedLens], seed: int) -> list[PlantedLens]:
    """Copy one brick, the catalogue and the brick table of a mini sky, with lenses added to the brick's images.

    Args:
        sky: the mini sky.
        out: folder to write; replaced where it exists.
        brick: name.
        lenses: to add; those whose stamp reaches beyond the brick are left out.
        seed: of the arcs' photon noise.

    Returns:
        The lenses that were planted; their table in lenscat's layout is out/planted.csv.
    """
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(sky / "sweep", out / "sweep")
    for table in sky.glob("survey-bricks-*"):
        shutil.copy(table, out)
    folder = Path(file_path(brick, "image", "g")).parent
    shutil.copytree(sky / folder, out / folder)
    rng = np.random.default_rng(seed)
    with BrickReader(str(sky), brick) as reader:
        inside = [lens for lens in lenses if _fits(reader, lens)]
        for i, band in enumerate(BANDS):
            image = fitsio.read(str(sky / file_path(brick, "image", band)), ext=1)
            invvar = fitsio.read(str(sky / file_path(brick, "invvar", band)), ext=1)
            sigma = float(1 / np.sqrt(np.median(invvar[invvar > 0])))
            for lens in inside:
                _add(image, reader, lens, band, i, sigma, rng)
            write_plane(out, reader.wcs, brick, "image", band, image, step=sigma / STEPS_PER_SIGMA)
    _write_table(out / "planted.csv", inside)
    return inside


def _pixel(reader: BrickReader, lens: PlantedLens) -> tuple[float, float]:
    x, y = reader.sky_to_pixel(np.array([lens.ra]), np.array([lens.dec]))
    return float(x[0]), float(y[0])


def _fits(reader: BrickReader, lens: PlantedLens) -> bool:
    x, y = _pixel(reader, lens)
    return HALF < x < reader.wcs.width - HALF - 1 and HALF < y < reader.wcs.height - HALF - 1


def _add(
    image: np.ndarray, reader: BrickReader, lens: PlantedLens, band: str, i: int, sigma: float, rng: np.random.Generator
) -> None:  # fmt: skip
    x, y = _pixel(reader, lens)
    beta = SkyConfig().moffat_beta
    fwhm = float(psfsize_to_fwhm(np.float64(reader.psfsize(x, y)[0][i]), beta))
    column, row = round(x), round(y)
    light = arc(lens, band, fwhm, beta, x - column, y - row)
    noise = rng.standard_normal(light.shape) * sigma * np.sqrt(light / SKY_BRIGHTNESS[band])
    image[row - HALF : row + HALF + 1, column - HALF : column + HALF + 1] += (light + noise).astype(
        np.float32
    )


def _write_table(path: Path, lenses: list[PlantedLens]) -> None:
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["name", "RA [deg]", "DEC [deg]", "zlens", "type", "grading", "ref"])
        writer.writerows(
            [v.name, v.ra, v.dec, "-", "galaxy", "planted", "local_spark.planted"] for v in lenses
        )


def facts(lenses: list[PlantedLens]) -> list[dict[str, float | str]]:
    """Return the lenses as plain values."""
    return [asdict(lens) for lens in lenses]
