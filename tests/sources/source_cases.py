"""Galaxy stamps and a small RealGalaxy folder for the tests of source banks."""

import numpy as np
from astropy.io import fits

PIXEL = 0.03


def disc(size=96, reff_px=8.0, q=1.0, phi=0.0, flux=1.0, x=None, y=None):
    """An exponential disc, averaged over 5 x 5 points of a pixel; 1.678 is b_n of n = 1."""
    x, y = (size - 1) / 2 if x is None else x, (size - 1) / 2 if y is None else y
    fine = (np.arange(size * 5) + 0.5) / 5 - 0.5
    dx, dy = np.meshgrid(fine - x, fine - y)
    along, across = dx * np.cos(phi) + dy * np.sin(phi), dy * np.cos(phi) - dx * np.sin(phi)
    light = np.exp(-1.67834699 * np.sqrt(q * along**2 + across**2 / q) / reff_px)
    light = light.reshape(size, 5, size, 5).mean((1, 3))
    return flux * light * 1.67834699**2 / (2 * np.pi * reff_px**2)


def noisy(image, sigma, seed=0, background=0.0):
    return image + background + sigma * np.random.default_rng(seed).standard_normal(image.shape)


def gaussian(size=33, sigma_px=1.5):
    y, x = np.mgrid[:size, :size] - size // 2
    return np.exp(-0.5 * (x**2 + y**2) / sigma_px**2)


def real_galaxy_folder(folder, stamps, psf=True, photometry=True):
    """Write stamps as a RealGalaxy catalogue; return the catalogue's path."""
    n = len(stamps)
    fits.HDUList([fits.PrimaryHDU(stamps[0]), *(fits.ImageHDU(s) for s in stamps[1:])]).writeto(
        folder / "images.fits"
    )
    if psf:
        fits.PrimaryHDU(gaussian()).writeto(folder / "psf.fits")
    columns = [
        fits.Column("IDENT", "J", array=np.arange(100, 100 + n)),
        fits.Column("GAL_FILENAME", "20A", array=["images.fits"] * n),
        fits.Column("GAL_HDU", "J", array=np.arange(n)),
        fits.Column("PSF_FILENAME", "20A", array=["psf.fits"] * n),
        fits.Column("PSF_HDU", "J", array=np.zeros(n, int)),
        fits.Column("PIXEL_SCALE", "D", array=np.full(n, PIXEL)),
    ]
    path = folder / "catalog.fits"
    fits.BinTableHDU.from_columns(columns).writeto(path)
    if photometry:
        order = np.arange(n)[::-1]  # another order: rows are matched by IDENT
        mags = {"g": 25.0, "r": 24.5, "i": 24.2, "z": 24.0, "y": 23.9}
        extra = [
            fits.Column("IDENT", "J", array=100 + order),
            fits.Column("ZPHOT", "D", array=0.1 + 0.1 * order),
        ]
        extra += [fits.Column(f"HSC_{b}", "D", array=m + 0.01 * order) for b, m in mags.items()]
        fits.BinTableHDU.from_columns(extra).writeto(folder / "catalog_fits.fits")
    return path
