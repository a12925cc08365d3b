"""How other lensing codes draw the same three-band stamps: lenstronomy, and JAXtronomy and caustics where installed.

Every renderer here takes the columns of `tests/lensing/draws.py` and a row number and returns (band, y, x). All
are given the effective PSF as a 63-pixel kernel at the pixel scale. Except where said, they bin sub-pixels into
pixels and convolve, so that the pixel is applied a second time; `deconvolved` takes it out of the kernel first,
which is the best that can be done for them from outside.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.fft import irfft2, rfft2
from scipy.signal import fftconvolve

from darkhaloscope.lensing.light import sersic_bn, sersic_central_brightness
from darkhaloscope.lensing.psf import psf_profile

SIZE, SCALE, KERNEL, N_BAND = 64, 0.262, 63, 3
Rows = dict[str, np.ndarray]
Draw = Callable[[Rows, int], np.ndarray]


def kernel_of(rows: Rows, i: int, size: int = KERNEL) -> np.ndarray:
    """The effective PSF of row i sampled on its own middle pixel."""
    offset = (np.arange(size) - size // 2) * SCALE
    model = "gaussian" if rows["gaussian"][i] else "moffat"
    r = np.hypot(offset[:, None], offset)
    return np.asarray(psf_profile(r, rows["fwhm"][i], model, rows["beta"][i])) * SCALE**2


def deconvolved(kernel: np.ndarray) -> np.ndarray:
    """The kernel with one pixel's box divided out."""
    k = np.fft.fftfreq(len(kernel))
    box = np.sinc(k)[:, None] * np.sinc(k[: len(k) // 2 + 1])
    return irfft2(rfft2(kernel) / box, kernel.shape)


def lens_kwargs(rows: Rows, i: int) -> list[dict[str, float]]:
    """SIE and shear in lenstronomy's parameters, in arcsec from the stamp's middle."""
    q, phi = rows["lens_q"][i], rows["lens_phi_rad"][i]
    e, gamma, angle = (1 - q) / (1 + q), rows["shear"][i], 2 * rows["shear_phi_rad"][i]
    x, y = lens_centre(rows, i)
    sie = {"theta_E": rows["theta_e_arcsec"][i], "e1": e * np.cos(2 * phi), "e2": e * np.sin(2 * phi)}
    shear = {"gamma1": gamma * np.cos(angle), "gamma2": gamma * np.sin(angle), "ra_0": x, "dec_0": y}
    return [{**sie, "center_x": x, "center_y": y}, shear]


def lens_centre(rows: Rows, i: int) -> tuple[float, float]:
    """Deflector's centre, arcsec from the stamp's middle."""
    middle = (SIZE - 1) / 2
    return (rows["x_lens"][i] - middle) * SCALE, (rows["y_lens"][i] - middle) * SCALE


def source_kwargs(rows: Rows, i: int) -> list[dict[str, float]]:
    """A unit-flux elliptical Sersic in lenstronomy's parameters."""
    q, phi, n, reff = (rows[k][i] for k in ("src_q", "src_phi_rad", "src_n", "src_reff_arcsec"))
    e, (x, y) = (1 - q) / (1 + q), lens_centre(rows, i)
    return [
        {
            "amp": float(sersic_central_brightness(reff, n) * np.exp(-sersic_bn(n))),
            "R_sersic": reff,
            "n_sersic": n,
            "e1": e * np.cos(2 * phi),
            "e2": e * np.sin(2 * phi),
            "center_x": x + rows["src_x_arcsec"][i],
            "center_y": y + rows["src_y_arcsec"][i],
        }
    ]


def image_kwargs(rows: Rows, i: int, bank: Any) -> list[dict[str, Any]]:
    """A unit-flux INTERPOL source in lenstronomy's parameters."""
    stamp, (x, y) = bank.stamps[i].astype(float), lens_centre(rows, i)
    scale = float(bank.pixel_scale_arcsec[i])
    if bank.flip[i]:
        stamp = stamp[:, ::-1]
    return [
        {
            "image": stamp / stamp.sum() / scale**2,
            "amp": 1.0,
            "center_x": x + rows["src_x_arcsec"][i],
            "center_y": y + rows["src_y_arcsec"][i],
            "phi_G": rows["src_phi_rad"][i],
            "scale": scale,
        }
    ]


def blurred(sharp: np.ndarray, rows: Rows, i: int) -> np.ndarray:
    """Every band of a pixel-averaged image convolved with its kernel without the pixel, (band, y, x)."""
    return np.stack([fftconvolve(sharp, deconvolved(kernel_of(rows, i)), mode="same") for _ in range(N_BAND)])


def _grid() -> Any:
    from lenstronomy.Data.pixel_grid import PixelGrid

    first, turn = -(SIZE - 1) / 2 * SCALE, np.eye(2) * SCALE
    return PixelGrid(nx=SIZE, ny=SIZE, transform_pix2angle=turn, ra_at_xy_0=first, dec_at_xy_0=first)


class Jaxtronomy:
    """JAXtronomy: one compiled 4 x 4 image model for all rows, the bands convolved afterwards."""

    def __init__(self) -> None:
        from jaxtronomy.ImSim.image_model import ImageModel
        from jaxtronomy.LensModel.lens_model import LensModel
        from jaxtronomy.LightModel.light_model import LightModel
        from lenstronomy.Data.psf import PSF

        lens, light = LensModel(["SIE", "SHEAR"]), LightModel(["SERSIC_ELLIPSE"])
        numerics = {"supersampling_factor": 4}
        self.model = ImageModel(_grid(), PSF(psf_type="NONE"), lens, light, kwargs_numerics=numerics)

    def draw(self, rows: Rows, i: int) -> np.ndarray:
        """One tracing, each band's kernel without the pixel; kept off q = 1, where its SIE gives no light."""
        rows = {**rows, "lens_q": np.minimum(rows["lens_q"], 1 - 1e-4)}
        return blurred(np.asarray(self.model.image(lens_kwargs(rows, i), source_kwargs(rows, i))), rows, i)


class Lenstronomy:
    """lenstronomy, as its tutorials use it and at its best; Sersic sources, or the images of a bank."""

    def __init__(self, bank: Any = None):
        from lenstronomy.Data.psf import PSF
        from lenstronomy.ImSim.image_model import ImageModel
        from lenstronomy.LensModel.lens_model import LensModel
        from lenstronomy.LightModel.light_model import LightModel

        self.image_model, self.psf, self.light_model = ImageModel, PSF, LightModel
        self.lens, self.grid, self.bank = LensModel(["SIE", "SHEAR"]), _grid(), bank

    def source(self, rows: Rows, i: int) -> tuple[Any, list[dict[str, Any]]]:
        """Source model and parameters of row i; INTERPOL keeps its first image, so each row needs its own."""
        if self.bank is None:
            return self.light_model(["SERSIC_ELLIPSE"]), source_kwargs(rows, i)
        return self.light_model(["INTERPOL"]), image_kwargs(rows, i, self.bank)

    def tutorial(self, rows: Rows, i: int) -> np.ndarray:
        """As the tutorials draw a multi-band image: each band on its own, 4 x 4 sub-pixels everywhere."""
        bands, (light, source) = [], self.source(rows, i)
        for _ in range(N_BAND):
            psf = self.psf(psf_type="PIXEL", kernel_point_source=kernel_of(rows, i))
            model = self.image_model(
                self.grid, psf, self.lens, light, kwargs_numerics={"supersampling_factor": 4}
            )
            bands.append(model.image(lens_kwargs(rows, i), source))
        return np.stack([np.asarray(b) for b in bands])

    def adaptive(self, rows: Rows, i: int) -> np.ndarray:
        """Its best use: sub-pixels only where the light is, traced once, each band's kernel without the pixel."""
        lens, (light, source) = lens_kwargs(rows, i), self.source(rows, i)
        x, y = self.grid.pixel_coordinates
        bx, by = self.lens.ray_shooting(x.ravel(), y.ravel(), lens)
        faint = light.surface_brightness(bx, by, source).reshape(SIZE, SIZE)
        lit = faint > 1e-3 * faint.max()
        grown = lit.copy()
        for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
            grown |= np.roll(lit, step, axis)
        numerics = {"compute_mode": "adaptive", "supersampling_factor": 6, "supersampled_indexes": grown}
        model = self.image_model(
            self.grid, self.psf(psf_type="NONE"), self.lens, light, kwargs_numerics=numerics
        )
        sharp = np.asarray(model.source_surface_brightness(source, lens, unconvolved=True))
        return blurred(sharp, rows, i)


class Caustics:
    """caustics: torch on the CPU, 4 x 4 sub-pixels, one simulator for all rows."""

    def __init__(self, upsample: int = 4):
        import caustics
        import torch

        torch.set_num_threads(1)
        self.torch, self.upsample = torch, upsample
        cosmology = caustics.FlatLambdaCDM()
        sie = caustics.SIE(cosmology=cosmology, z_l=0.5, z_s=1.0)
        shear = caustics.ExternalShear(cosmology=cosmology, z_l=0.5, z_s=1.0)
        self.lens = caustics.SinglePlane(cosmology=cosmology, lenses=[sie, shear], z_l=0.5, z_s=1.0)
        self.sersic = caustics.Sersic()
        step = SCALE / upsample
        axis = (torch.arange(SIZE * upsample) - (SIZE * upsample - 1) / 2) * step
        self.y, self.x = torch.meshgrid(axis, axis, indexing="ij")

    def draw(self, rows: Rows, i: int) -> np.ndarray:
        """One tracing, mean over sub-pixels, each band's kernel without the pixel; its radius is the major axis."""
        torch, (x0, y0) = self.torch, lens_centre(rows, i)
        sie = [x0, y0, rows["lens_q"][i], rows["lens_phi_rad"][i], rows["theta_e_arcsec"][i]]
        gamma, angle = rows["shear"][i], 2 * rows["shear_phi_rad"][i]
        params = torch.tensor(
            [*sie, x0, y0, gamma * np.cos(angle), gamma * np.sin(angle)], dtype=torch.float32
        )
        bx, by = self.lens.raytrace(self.x, self.y, params)
        source = source_kwargs(rows, i)[0]
        amp = source["amp"] * SCALE**2
        light = self.sersic.brightness(
            bx,
            by,
            torch.tensor(
                [
                    source["center_x"], source["center_y"], rows["src_q"][i], rows["src_phi_rad"][i],
                    source["n_sersic"], source["R_sersic"] / np.sqrt(rows["src_q"][i]), amp,
                ],
                dtype=torch.float32,
            ),
        )  # fmt: skip
        sharp = light.reshape(SIZE, self.upsample, SIZE, self.upsample).mean((1, 3)).numpy()
        return blurred(sharp, rows, i)
