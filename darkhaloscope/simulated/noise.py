"""Noise as a resampled coadd has it: Gaussian, its neighbouring pixels correlated. Numpy and numba only."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import njit
from numpy.typing import NDArray


@lru_cache(maxsize=4)
def noise_kernel(correlation: tuple[float, ...]) -> NDArray[np.float32]:
    """Return a symmetric kernel of unit norm that turns white noise into noise of this correlation.

    Args:
        correlation: of pixels 1, 2, 3, ... apart along an axis.

    Returns:
        (2 m + 1,): the zero-phase kernel whose power spectrum is ``1 + 2 sum_k rho_k cos(k w)``.

    Raises:
        ValueError: no noise has such a correlation (the spectrum would be negative).
    """
    angle = 2.0 * np.pi * np.arange(128) / 128
    power = np.ones_like(angle)
    for step, rho in enumerate(correlation, start=1):
        power += 2.0 * rho * np.cos(step * angle)
    if np.min(power) < 0.0:
        raise ValueError(f"noise correlation {correlation}: the power spectrum is negative at some scale")
    taps = np.fft.ifft(np.sqrt(power)).real
    reach = len(correlation) + 2
    kernel = np.concatenate([taps[-reach:], taps[: reach + 1]])
    return (kernel / np.sqrt(np.square(kernel).sum())).astype(np.float32)


def correlated_noise(
    rng: np.random.Generator, shape: tuple[int, int], correlation: tuple[float, ...]
) -> NDArray[np.float32]:
    """Draw Gaussian noise of unit variance, correlated along both axes as in a resampled coadd.

    Args:
        rng: generator.
        shape: (y, x).
        correlation: of pixels 1, 2, 3, ... apart along an axis; of pixels (i, j) apart it is the product.
    """
    kernel = noise_kernel(correlation)
    reach = len(kernel) // 2
    white = rng.standard_normal((shape[0] + 2 * reach, shape[1] + 2 * reach), dtype=np.float32)
    return _smooth(white, kernel)


@njit(cache=True, fastmath=True)
def _smooth(white, kernel):
    """Convolve with the separable kernel; the borders are spent."""
    taps = kernel.shape[0]
    height, width = white.shape[0] - taps + 1, white.shape[1] - taps + 1
    out = np.empty((height, width), np.float32)
    line = np.empty(white.shape[1], np.float32)
    for y in range(height):
        line[:] = 0.0
        for j in range(taps):
            for x in range(line.shape[0]):
                line[x] += kernel[j] * white[y + j, x]
        for x in range(width):
            out[y, x] = 0.0
        for i in range(taps):
            for x in range(width):
                out[y, x] += kernel[i] * line[x + i]
    return out
