"""Confidence intervals of a rate k/n: the one place for their formulas."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betaincinv, ndtri, stdtrit

CONFIDENCE = 0.95
"""Default two-sided confidence of every interval of the project."""

CLUSTER_SUMS = ("n", "k", "clusters", "n_n", "n_k", "k_k")
"""What `clustered` needs, as sums over clusters h: of n_h, k_h, 1, n_h n_h, n_h k_h and k_h k_h."""


def wilson(
    successes: ArrayLike, trials: ArrayLike, confidence: float = CONFIDENCE
) -> tuple[np.ndarray, np.ndarray]:
    """Return the score interval of a rate (Wilson 1927, JASA 22, 209).

    Its average coverage is nominal even for small n and rates near 0 or 1; use it for plain rates.

    Args:
        successes: counts k, any shape, 0 <= k <= n; need not be whole (weighted counts).
        trials: counts n, broadcast against `successes`.
        confidence: two-sided confidence.

    Returns:
        (low, high), float64; NaN where there were no trials.

    Raises:
        ValueError: a count is negative, or there are more successes than trials.
    """
    k, n = _counts(successes, trials, "wilson")
    z = ndtri(0.5 + confidence / 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        rate = k / n
        centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * np.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    # At k = 0 and k = n the bound is exactly 0 or 1; rounding would leave 1e-17 of it.
    low = np.where(k == 0, np.where(n > 0, 0.0, np.nan), np.maximum(centre - half, 0.0))
    high = np.where(k == n, np.where(n > 0, 1.0, np.nan), np.minimum(centre + half, 1.0))
    return low, high


def clopper_pearson(
    successes: ArrayLike, trials: ArrayLike, confidence: float = CONFIDENCE
) -> tuple[np.ndarray, np.ndarray]:
    """Return the exact interval of a rate (Clopper & Pearson 1934, Biometrika 26, 404).

    Coverage is never below nominal; use it where few events carry the figure, as a false-positive rate.
    Arguments, returns and errors as `wilson`.
    """
    k, n = _counts(successes, trials, "clopper_pearson")
    tail = (1 - confidence) / 2
    # betaincinv needs positive parameters: the two closed ends are set below, so any stand-in will do.
    low = np.where(k == 0, 0.0, betaincinv(np.maximum(k, 1e-9), n - k + 1, tail))
    high = np.where(k == n, 1.0, betaincinv(k + 1, np.maximum(n - k, 1e-9), 1 - tail))
    return np.where(n > 0, low, np.nan), np.where(n > 0, high, np.nan)


def cluster_sums(bins: np.ndarray, cluster: np.ndarray, success: np.ndarray, n_bins: int) -> np.ndarray:
    """Return `CLUSTER_SUMS` of each bin, (n_bins, 6) int64; sums of parts that share no cluster add up.

    Args:
        bins: (rows,) bin of each trial; one in a negative bin is left out.
        cluster: (rows,) what a trial belongs to; a cluster in several bins is one in each of them.
        success: (rows,) bool.
        n_bins: bins.
    """
    inside = bins >= 0
    _, number = np.unique(cluster[inside], return_inverse=True)
    size = int(number.max(initial=0)) + 1
    pairs, pair = np.unique(bins[inside].astype(np.int64) * size + number, return_inverse=True)
    n = np.bincount(pair, minlength=len(pairs))
    k = np.bincount(pair[success[inside]], minlength=len(pairs))
    sums = [np.bincount(pairs // size, v, n_bins) for v in (n, k, np.ones(len(n)), n * n, n * k, k * k)]
    return np.rint(np.stack(sums, axis=-1)).astype(np.int64)


def clustered(sums: ArrayLike, confidence: float = CONFIDENCE) -> tuple[np.ndarray, np.ndarray]:
    """Return Wilson's interval of a rate whose trials come in clusters, as injections share hosts.

    It is `wilson` with `effective_trials` in the place of n, and k scaled likewise.

    Args:
        sums: (..., 6) `CLUSTER_SUMS`.
        confidence: two-sided confidence.

    Returns:
        (low, high), float64; NaN where there were no trials.
    """
    n, k = np.moveaxis(np.asarray(sums, np.float64), -1, 0)[:2]
    share = effective_trials(sums, confidence) / np.maximum(n, 1)
    return wilson(k * share, n * share, confidence)


def effective_trials(sums: ArrayLike, confidence: float = CONFIDENCE) -> np.ndarray:
    """Return how many independent trials say as much about a rate as these clusters do.

    Korn & Graubard (1998, Survey Methodology 24, 193): n over the design effect, which is the variance of the rate
    p = k/n between h clusters (linearised ratio, h/(h-1) sum (k_h - p n_h)^2 / n^2) over the binomial p(1-p)/(n-1),
    times (t_{n-1} / t_{h-1})^2 of Student's t, since only h clusters tell that variance. At most n; at least
    n^2 / sum n_h^2, where a cluster's trials are as one. That is taken where no variance can be had, with one cluster
    and at k = 0 or n; it is the number of clusters if they are of one size.

    Args:
        sums: (..., 6) `CLUSTER_SUMS`.
        confidence: that of the interval it is for.
    """
    n, k, clusters, n_n, n_k, k_k = np.moveaxis(np.asarray(sums, np.float64), -1, 0)
    at_least = n * n / np.maximum(n_n, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        residual = np.maximum(k_k - 2 * k / n * n_k + (k / n) ** 2 * n_n, 0)  # rounding may leave less
        between = clusters / (clusters - 1) * residual
        design_effect = between * (n - 1) / (k * (n - k))
        of_n, of_clusters = stdtrit(np.stack([n - 1, clusters - 1]), 0.5 + confidence / 2)
        effective = n / design_effect * (of_n / of_clusters) ** 2
    # With clusters of one trial `at_least` is n: rounding of the rest has no say.
    known = (clusters > 1) & (k > 0) & (k < n)
    return np.where(known, np.clip(effective, at_least, n), at_least)


def matched_difference(
    only_first: int, only_second: int, trials: int, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Return the interval of a difference of two rates measured on the same rows, first minus second.

    Wald's, with half an event added to each of the four outcomes (Agresti & Min 2005, Stat. Med. 24, 729): its
    coverage is near nominal where few rows disagree, where the plain one fails.

    Args:
        only_first: rows that only the first one hit.
        only_second: rows that only the second one hit.
        trials: rows.
        confidence: two-sided confidence.

    Raises:
        ValueError: counts are negative, or add up to more than `trials`.
    """
    if not (only_first >= 0 <= only_second and only_first + only_second <= trials):
        raise ValueError(f"matched_difference: {only_first} and {only_second} of {trials} rows disagree")
    first, second, n = only_first + 0.5, only_second + 0.5, trials + 2
    difference = (first - second) / n
    half = ndtri(0.5 + confidence / 2) * np.sqrt(first + second - (first - second) ** 2 / n) / n
    return max(float(difference - half), -1.0), min(float(difference + half), 1.0)


def _counts(successes: ArrayLike, trials: ArrayLike, who: str) -> tuple[np.ndarray, np.ndarray]:
    k, n = np.broadcast_arrays(np.asarray(successes, float), np.asarray(trials, float))
    if bad := int(np.sum(~((k >= 0) & (k <= n)))):
        raise ValueError(f"{who}: {bad} of {k.size} rates are not 0 <= successes <= trials")
    return k, n
