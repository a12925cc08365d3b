"""A brick in memory: sky, galaxies, masks; what BrickReader gives, without files."""

from types import SimpleNamespace

import numpy as np

from darkhaloscope.survey.coadds import Cutout
from darkhaloscope.survey.errors import BrickUnreadable
from darkhaloscope.survey.one_by_one import OneByOne

SIGMA = np.array([0.002, 0.0025, 0.009])
GAIN = np.array([35_000.0, 41_500.0, 38_000.0])


class FakeBrick(OneByOne):
    """Pixel (x, y) is at ra = 150 + x / 10000, dec = 2 + y / 10000."""

    def __init__(self, width=900, height=900, sizes=(1.4, 1.25, 1.2), has_maskbits=True, seed=0):
        self.brickname = "1500p020"
        self.wcs = SimpleNamespace(width=width, height=height)
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[:height, :width]
        light = np.zeros((height, width))
        for _ in range(120):
            cx, cy, peak = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0.01, 0.25)
            a, b, c, d = int(cx) - 30, int(cx) + 30, int(cy) - 30, int(cy) + 30
            part = np.s_[max(c, 0) : max(d, 0), max(a, 0) : max(b, 0)]
            light[part] += peak * np.exp(-0.5 * ((x[part] - cx) ** 2 + (y[part] - cy) ** 2) / 5.0**2)
        self.invvar = 1 / (SIGMA[:, None, None] ** 2 + light / GAIN[:, None, None])
        noise = rng.standard_normal((3, height, width)) / np.sqrt(self.invvar)
        self.image = (light + noise).astype(np.float32)
        self.invvar = self.invvar.astype(np.float32)
        self.maskbits = np.zeros((height, width), np.int32)
        self.sizes, self.has_maskbits, self.broken = sizes, has_maskbits, None

    def sky_to_pixel(self, ra, dec):
        return (np.asarray(ra) - 150) * 1e4, (np.asarray(dec) - 2) * 1e4

    def cut(self, x0, y0, size):
        if self.broken and self.broken(x0, y0):
            raise BrickUnreadable("1500p020: image-r cannot be read: broken tile")
        height, width = self.maskbits.shape
        out = [np.zeros((3, size, size), np.float32) for _ in range(2)] + [np.zeros((size, size), np.int32)]
        ya, yb, xa, xb = max(y0, 0), min(y0 + size, height), max(x0, 0), min(x0 + size, width)
        inside = max(yb - ya, 0) * max(xb - xa, 0)
        if inside:
            for target, plane in zip(out, (self.image, self.invvar, self.maskbits), strict=True):
                target[..., ya - y0 : yb - y0, xa - x0 : xb - x0] = plane[..., ya:yb, xa:xb]
        image, invvar, maskbits = out
        nonfinite = ~(np.isfinite(image) & np.isfinite(invvar))
        invvar[nonfinite] = 0
        return Cutout(image, invvar, maskbits, self.has_maskbits, size * size - inside, int(nonfinite.sum()))

    def psfsize(self, x, y):
        if self.sizes is None:
            raise BrickUnreadable("1500p020: has no psfsize map")
        return np.array(self.sizes, np.float32), "map"


def at(x, y):
    """Sky position of a pixel of the fake brick."""
    return {"ra": 150 + np.asarray(x, float) / 1e4, "dec": 2 + np.asarray(y, float) / 1e4}
