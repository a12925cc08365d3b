"""The embedded default bank: synthetic clumpy galaxies, the same on every machine.

A galaxy is an exponential disc with a small bulge (old light) and star-forming clumps that follow the disc
(young light, bluer). Sizes, axis ratios and colours are spread like those of faint COSMOS galaxies; how much
light is in clumps, and how blue it is, are plain choices: for real galaxies build a bank (`sources.build`).
"""

from __future__ import annotations

from functools import cache

import numpy as np

from darkhaloscope.draws import digest, normals, uniforms
from darkhaloscope.lensing.light import elliptical_radius, sersic_surface_brightness
from darkhaloscope.sources.bank import Bank, make_index, split_of
from darkhaloscope.sources.morphology import clumpiness, half_light_radius, moments

N_GALAXIES = 120
STAMP_SIZE = 96
PIXEL_ARCSEC = 0.03
SHAPE_STREAM, CLUMP_STREAM, COLOUR_STREAM = 0, 1, 2
MAX_CLUMPS = 12
MEDIAN_SIZE, SIZE_SCATTER = 0.18, 0.35  # arcsec, and in ln; COSMOS i = 22.5-25.5: median 0.16 arcsec
G_R, R_Z = (0.26, 0.29), (0.73, 0.49)  # median and half width of the same galaxies
YOUNG_IS_BLUER = 0.5  # mag in g - r and in r - z


@cache
def synthetic_bank() -> Bank:
    """Return the bank, built in memory in about a second, once per process."""
    index = np.arange(N_GALAXIES)
    ids = [digest("synthetic source", int(i)) for i in index]
    u = uniforms(ids, SHAPE_STREAM, 6)
    size = np.clip(MEDIAN_SIZE * np.exp(SIZE_SCATTER * normals(ids, SHAPE_STREAM + 3, 1)[:, 0]), 0.06, 0.5)
    old, young = np.empty((2, N_GALAXIES, STAMP_SIZE, STAMP_SIZE))
    for i in index:
        old[i], young[i] = _galaxy(size[i], u[i], uniforms([ids[i]], CLUMP_STREAM, 5 * MAX_CLUMPS)[0])
    share = _young_shares(0.15 + 0.4 * u[:, 4])
    images = (1 - share[:, 1, None, None]) * old + share[:, 1, None, None] * young
    colours = np.clip(normals(ids, COLOUR_STREAM, 2), -2, 2)
    meta = {
        "index": index,
        **_measured(images),
        "g_r": G_R[0] + G_R[1] * colours[:, 0],
        "r_z": R_Z[0] + R_Z[1] * (0.3 * colours[:, 0] + 0.95 * colours[:, 1]),
        "split": split_of(index, "synthetic", (0.7, 0.15, 0.15)),
    }
    components = np.stack([old, young], axis=1).astype(np.float32)
    # of the recipe, not the pixels: their last bits differ between machines, and task_ids must not
    content = digest("synthetic bank", N_GALAXIES, STAMP_SIZE, PIXEL_ARCSEC, MEDIAN_SIZE, SIZE_SCATTER)
    return Bank(make_index(meta, PIXEL_ARCSEC, content), images.astype(np.float32), components, share)


def _galaxy(size: float, u: np.ndarray, clumps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return old and young light, each (y, x) of unit flux, of a galaxy of half-light radius `size` arcsec.

    `u` are draws of axis ratio, angle, bulge share, number of clumps, -, -; `clumps` five per clump.
    """
    axis = (np.arange(STAMP_SIZE) - (STAMP_SIZE - 1) / 2) * PIXEL_ARCSEC
    x, y = np.meshgrid(axis, axis)
    q, phi, bulge = 0.3 + 0.7 * u[0], np.pi * u[1], 0.3 * u[2]
    # discs and bulges are cuspy on the scale of a pixel: average over 3 x 3 points of it
    steps = (np.arange(3) - 1) * PIXEL_ARCSEC / 3
    old = np.zeros_like(x)
    for dx in steps:
        for dy in steps:
            old += sersic_surface_brightness(x + dx, y + dy, 1 - bulge, size, q, phi, 1.0)
            old += sersic_surface_brightness(x + dx, y + dy, bulge, 0.3 * size, np.sqrt(q), phi, 2.0)
    young = np.zeros_like(x)
    for a, b, c, d, e in clumps.reshape(MAX_CLUMPS, 5)[: 3 + int(u[3] * (MAX_CLUMPS - 2))]:
        radius, angle = 1.6 * size * np.sqrt(a), 2 * np.pi * b
        along, across = radius * np.cos(angle) / np.sqrt(q), radius * np.sin(angle) * np.sqrt(q)
        cx, cy = along * np.cos(phi) - across * np.sin(phi), along * np.sin(phi) + across * np.cos(phi)
        width = 0.03 + 0.05 * c
        distance = elliptical_radius(
            x - cx,
            y - cy,
            0.5 + 0.5 * d,
            np.pi * b,
        )
        young += (0.1 + e**3) * np.exp(-0.5 * (distance / width) ** 2) / width**2
    return old / old.sum(), young / young.sum()


def _young_shares(young_r: np.ndarray) -> np.ndarray:
    """Return the young light's share per band, (n, band), from its share in r and how much bluer it is."""
    bluer = np.array([10 ** (0.4 * YOUNG_IS_BLUER), 1.0, 10 ** (-0.4 * YOUNG_IS_BLUER)])
    young = young_r[:, None] * bluer
    return young / (young + 1 - young_r[:, None])


def _measured(images: np.ndarray) -> dict[str, np.ndarray]:
    rows = []
    for image in images:
        shape = moments(image)
        radius = half_light_radius(image, shape, oversampling=2)
        rows.append((radius * PIXEL_ARCSEC, clumpiness(image, radius), shape.q))
    size, clumpy, q = np.array(rows).round(4).T  # so that a machine's last bits do not reach manifests
    return {"hlr_arcsec": size, "hlr_image_arcsec": size, "clumpiness": clumpy, "axis_ratio": q}
