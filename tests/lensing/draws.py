"""Random lenses for accuracy tests and benchmarks: the ranges of the accuracy promise."""

import numpy as np
import oracle

from darkhaloscope.lensing.deflectors import to_source_plane
from darkhaloscope.lensing.light import sersic_surface_brightness
from darkhaloscope.lensing.psf import Psf
from darkhaloscope.lensing.render import render
from darkhaloscope.lensing.scene import Scene

ON_CAUSTIC = 0.2  # share of rows whose source sits on the tangential caustic


def draw(n, seed):
    """Columns of n random rows: the fields of `Scene` but flux, and fwhm, beta, gaussian, caustic."""
    rng = np.random.default_rng(seed)
    theta_e = rng.uniform(0.3, 3.0, n)
    radius, angle = 1.2 * theta_e * np.sqrt(rng.random(n)), rng.uniform(0, 2 * np.pi, n)
    rows = {
        "x_lens": rng.uniform(31.5, 32.5, n),
        "y_lens": rng.uniform(31.5, 32.5, n),
        "theta_e_arcsec": theta_e,
        "lens_q": np.where(rng.random(n) < 0.1, 1.0, rng.uniform(0.3, 1.0, n)),
        "lens_phi_rad": rng.uniform(0, np.pi, n),
        "shear": rng.uniform(0, 0.1, n),
        "shear_phi_rad": rng.uniform(0, np.pi, n),
        "src_x_arcsec": radius * np.cos(angle),
        "src_y_arcsec": radius * np.sin(angle),
        "src_reff_arcsec": rng.uniform(0.05, 0.5, n),
        "src_q": rng.uniform(0.3, 1.0, n),
        "src_phi_rad": rng.uniform(0, np.pi, n),
        "src_n": rng.uniform(0.5, 4.0, n),
        "fwhm": rng.uniform(0.7, 2.5, n),
        "beta": rng.uniform(2.5, 4.5, n),
        "gaussian": rng.random(n) < 0.5,
        "caustic": rng.random(n) < ON_CAUSTIC,
    }
    x, y = caustic_point(rows, angle)
    rows["src_x_arcsec"] = np.where(rows["caustic"], x, rows["src_x_arcsec"])
    rows["src_y_arcsec"] = np.where(rows["caustic"], y, rows["src_y_arcsec"])
    return rows


def caustic_point(rows, angle):
    """Source-plane image of the critical curve's point at ``angle``, by bisection of the Jacobian's determinant."""
    lens = [rows[k] for k in ("theta_e_arcsec", "lens_q", "lens_phi_rad", "shear", "shear_phi_rad")]

    def mapped(r):
        return to_source_plane(r * np.cos(angle), r * np.sin(angle), *lens)

    def determinant(r, h=1e-5):
        x, y = r * np.cos(angle), r * np.sin(angle)
        xx, xy = (np.subtract(*pair) / (2 * h) for pair in _pairs(x + h, y, x - h, y, lens))
        yx, yy = (np.subtract(*pair) / (2 * h) for pair in _pairs(x, y + h, x, y - h, lens))
        return xx * yy - xy * yx

    low, high = 0.05 * lens[0], 4.0 * lens[0]
    for _ in range(50):
        middle = 0.5 * (low + high)
        outside = determinant(middle) > 0
        low, high = np.where(outside, low, middle), np.where(outside, middle, high)
    return mapped(high)


def _pairs(x1, y1, x0, y0, lens):
    return zip(to_source_plane(x1, y1, *lens), to_source_plane(x0, y0, *lens), strict=True)


def scene_of(rows, flux=1.0, n_band=1):
    """The draws as a Scene with the same flux in every band."""
    fields = {k: v for k, v in rows.items() if k not in ("fwhm", "beta", "gaussian", "caustic")}
    return Scene(**fields, flux=np.full((len(rows["fwhm"]), n_band), flux))


def truth_of(rows, i, **source):
    """Image and magnification of row i by adaptive quadrature."""
    fwhm, beta = rows["fwhm"][i], rows["beta"][i]
    profile = oracle.gaussian(fwhm) if rows["gaussian"][i] else oracle.moffat(fwhm, beta)
    image, magnification = oracle.truth({k: v[i] for k, v in rows.items()}, [profile], **source)
    return image[0], magnification


def render_rows(rows, n_band=1, **options):
    """Render the draws, each with its own PSF; the images (n, y, x) of the first band and magnifications."""
    scene, n = scene_of(rows, n_band=n_band), len(rows["fwhm"])
    image, magnification = np.zeros((n, 64, 64)), np.zeros(n)
    for gaussian in (True, False):
        at = np.flatnonzero(rows["gaussian"] == gaussian)
        fwhm = np.repeat(rows["fwhm"][at, None], n_band, 1)
        psf = Psf.gaussian(fwhm) if gaussian else Psf.moffat(fwhm, rows["beta"][at])
        chosen = {k: v.take(at) for k, v in options.items()}
        made = render(scene.take(at), psf, **chosen)
        assert made.ok.all(), made.reason
        image[at], magnification[at] = made.image[:, 0], made.magnification
    return image, magnification


def relative_rms(image, truth):
    """Root of the summed squared error over that of the truth, per stamp."""
    return np.sqrt(((image - truth) ** 2).sum((-2, -1)) / (truth**2).sum((-2, -1)))


def clumpy(n, seed, size=61, scale=0.03):
    """Stamps of a Sersic disc with bright clumps, smoothed to HST's resolution."""
    rng, y, x = np.random.default_rng(seed), *np.indices((size, size)) - size // 2
    stamps = []
    for _ in range(n):
        stamp = sersic_surface_brightness(
            x * scale, y * scale, 1.0, rng.uniform(0.1, 0.35), 0.6, rng.uniform(0, 3), 1.0
        )
        for _ in range(6):
            cx, cy = rng.normal(0, 6, 2)
            stamp = stamp + stamp.max() * rng.uniform(0.1, 0.6) * np.exp(
                -0.5 * ((x - cx) ** 2 + (y - cy) ** 2) / 1.6**2
            )
        stamps.append(stamp)
    return np.array(stamps, np.float32)
