"""What is rendered: a batch of lensed (or unlensed) galaxies as a struct of arrays, and its checks."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .pixelised import SourceImages

Array = NDArray[np.float64]
Rows = Any  # (n,) float64 once made; scalars and lists are accepted

# Closed intervals outside which a row is refused, with its reason: what the renderer is tested for.
LIMITS: dict[str, tuple[float, float]] = {
    "theta_e_arcsec": (0.0, 60.0),
    "lens_q": (0.2, 1.0),
    "shear": (0.0, 0.5),
    "src_reff_arcsec": (1e-3, 60.0),
    "src_q": (0.05, 1.0),
    "src_n": (0.3, 8.0),
}
SERSIC_ONLY = ("src_reff_arcsec", "src_q", "src_n")


@dataclass(frozen=True)
class Scene:
    """One lens and one source per row; every field is (n,) float64 unless said. Scalars broadcast.

    ``theta_e_arcsec = 0`` and ``shear = 0`` is an unlensed galaxy at ``src_x_arcsec, src_y_arcsec``.
    """

    x_lens: Rows
    """Deflector centre along x, stamp pixels, 0-based, pixel centres at integers."""
    y_lens: Rows
    """Deflector centre along y."""
    theta_e_arcsec: Rows
    """Circularised Einstein radius, arcsec; 0 for no lens."""
    lens_q: Rows
    """Axis ratio of the SIE, 0.2 to 1."""
    lens_phi_rad: Rows
    """Angle of its major axis from +x, counter-clockwise."""
    shear: Rows
    """External shear."""
    shear_phi_rad: Rows
    """Angle of the shear."""
    src_x_arcsec: Rows
    """Source centre relative to the deflector, arcsec along the stamp's x."""
    src_y_arcsec: Rows
    """Source centre relative to the deflector, arcsec along the stamp's y."""
    src_reff_arcsec: Rows
    """Half-light radius of the product-averaged axis, arcsec."""
    src_q: Rows
    """Axis ratio of the source."""
    src_phi_rad: Rows
    """Angle of the source's major axis (of a pixelised source: its rotation)."""
    src_n: Rows
    """Sersic index."""
    flux: Rows
    """(n, band) total unlensed flux over the whole plane, nmgy."""

    def __post_init__(self) -> None:
        """Cast to float64 and broadcast scalars to the batch.

        Raises:
            ValueError: if a field's length does not fit the batch.
        """
        flux = np.atleast_2d(np.asarray(self.flux, float))
        values = {f.name: np.atleast_1d(np.asarray(getattr(self, f.name), float)) for f in fields(self)[:-1]}
        n = max(len(flux), *(len(v) for v in values.values()))
        for name, value in {**values, "flux": flux}.items():
            shape = (n, *value.shape[1:])
            if value.ndim != (2 if name == "flux" else 1) or len(value) not in (1, n):
                raise ValueError(f"Scene.{name} has shape {value.shape}, expected {n} rows or one")
            object.__setattr__(self, name, np.ascontiguousarray(np.broadcast_to(value, shape)))

    def __len__(self) -> int:
        return len(self.flux)

    @property
    def n_band(self) -> int:
        """Number of bands."""
        return int(self.flux.shape[1])

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_] | slice) -> Scene:
        """The scene of the given rows only."""
        return Scene(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


def check_scene(scene: Scene, sources: SourceImages | None = None) -> tuple[str, ...]:
    """Why each row cannot be rendered; "" where it can.

    Args:
        scene: the batch.
        sources: its image sources; their rows' Sersic parameters are not looked at.

    Returns:
        One string per row, naming the row, the first bad parameter, what was found and what is expected.
    """
    reasons = [""] * len(scene) if sources is None else list(sources.why_not())
    is_image = np.zeros(len(scene), bool) if sources is None else np.asarray(sources.index) >= 0
    for field in fields(scene):
        value = getattr(scene, field.name)
        low, high = LIMITS.get(field.name, (-np.inf, np.inf))
        bad = ~(np.isfinite(value) & (value >= low) & (value <= high))
        bad = bad.any(axis=1) if bad.ndim == 2 else bad
        if field.name in SERSIC_ONLY:
            bad = bad & ~is_image
        for row in np.flatnonzero(bad):
            reasons[row] = reasons[row] or (
                f"row {row}: {field.name} is {value[row].tolist()}, expected finite"
                + (f" and in [{low:g}, {high:g}]" if np.isfinite(high) else "")
            )
    return tuple(reasons)
