"""Read galaxies of GalSim's RealGalaxy layout: the COSMOS 23.5 and 25.2 samples, and catalogues like them.

A folder with `real_galaxy_catalog*.fits` (one row a galaxy: IDENT, GAL_FILENAME, GAL_HDU, PSF_FILENAME,
PSF_HDU, PIXEL_SCALE), the image files it names, and optionally `<catalogue>_fits.fits` with more columns by
IDENT: HSC_g ... HSC_y (AB mag) and ZPHOT. (Mandelbaum et al. 2012, MNRAS 420, 1518.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from darkhaloscope.sources.photometric_systems import HSC_FROM_PS1, decam_from_hsc

NEEDED = ("IDENT", "GAL_FILENAME", "GAL_HDU", "PSF_FILENAME", "PSF_HDU", "PIXEL_SCALE")


class CatalogueBroken(ValueError):
    """A RealGalaxy catalogue that cannot be read; the message names the file and what is missing."""


@dataclass(frozen=True)
class RealGalaxy:
    """One galaxy: stamp and PSF (y, x; the PSF None where there is none), magnitudes NaN where not known."""

    index: int
    stamp: np.ndarray
    psf: np.ndarray | None
    mag_r: float
    g_r: float
    r_z: float
    redshift: float


@dataclass(frozen=True)
class Catalogue:
    """An open catalogue: `rows` of it, pixel size in arcsec, and DECam magnitudes and redshifts by row."""

    folder: Path
    rows: Any
    pixel_arcsec: float
    magnitudes: dict[str, np.ndarray]
    redshift: np.ndarray

    def galaxies(self) -> Iterator[RealGalaxy]:
        """Yield the galaxies in the catalogue's order; image files are opened once each.

        Raises:
            CatalogueBroken: an image file is not there or lacks an HDU.
        """
        files: dict[str, fits.HDUList] = {}
        try:
            for i, row in enumerate(self.rows):
                yield RealGalaxy(
                    int(row["IDENT"]),
                    self._plane(files, row, "GAL"),
                    self._plane(files, row, "PSF") if self.has_psf(row) else None,
                    float(self.magnitudes["r"][i]),
                    float(self.magnitudes["g"][i] - self.magnitudes["r"][i]),
                    float(self.magnitudes["r"][i] - self.magnitudes["z"][i]),
                    float(self.redshift[i]),
                )
        finally:
            for file in files.values():
                file.close()

    def has_psf(self, row: Any) -> bool:
        """Tell whether the PSF file that a row names is there."""
        return (self.folder / str(row["PSF_FILENAME"]).strip()).is_file()

    def _plane(self, files: dict[str, fits.HDUList], row: Any, kind: str) -> np.ndarray:
        name, hdu = str(row[f"{kind}_FILENAME"]).strip(), int(row[f"{kind}_HDU"])
        path = self.folder / name
        if name not in files:
            if not path.is_file():
                there = sorted(p.name for p in self.folder.glob("*.fits"))
                raise CatalogueBroken(f"{path}: the catalogue names this file; the folder has {there}")
            files[name] = fits.open(path, memmap=True)
        if hdu >= len(files[name]):
            raise CatalogueBroken(f"{path}: has {len(files[name])} HDUs, the catalogue wants HDU {hdu}")
        return np.array(files[name][hdu].data, np.float64)


def open_catalogue(path: str | Path) -> Catalogue:
    """Open a RealGalaxy catalogue file.

    Raises:
        CatalogueBroken: no such file, not a FITS table, columns missing, or pixels of several sizes.
    """
    path = Path(path)
    rows = _table(path)
    if missing := [n for n in NEEDED if n not in rows.names]:
        raise CatalogueBroken(f"{path}: columns {missing} missing; a RealGalaxy catalogue has {list(NEEDED)}")
    scales = np.unique(np.asarray(rows["PIXEL_SCALE"], float))
    if len(scales) != 1:
        raise CatalogueBroken(f"{path}: PIXEL_SCALE has {scales.tolist()}; a bank has one pixel size")
    extra = path.with_name(f"{path.stem}_fits.fits")
    magnitudes, redshift = _photometry(_table(extra) if extra.is_file() else None, np.asarray(rows["IDENT"]))
    return Catalogue(path.parent, rows, float(scales[0]), magnitudes, redshift)


def _table(path: Path) -> Any:
    try:
        with fits.open(path) as file:
            return file[1].data.copy()
    except (OSError, IndexError, AttributeError) as error:
        raise CatalogueBroken(f"{path}: no FITS table: {error}") from error


def _photometry(table: Any | None, ident: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return DECam g, r, z and redshift of galaxies by IDENT; NaN where the table has none."""
    nothing = np.full(len(ident), np.nan)
    if table is None:
        return {b: nothing for b in "grz"}, nothing
    row_of = {int(i): k for k, i in enumerate(table["IDENT"])}
    where = np.array([row_of.get(int(i), -1) for i in ident])

    def column(name: str, low: float, high: float) -> np.ndarray:
        if name not in table.names:
            return nothing
        values = np.asarray(table[name], np.float64)[where]
        return np.where((where >= 0) & (values > low) & (values < high), values, np.nan)

    hsc = {b: column(f"HSC_{b}", 10.0, 40.0) for b in HSC_FROM_PS1}
    return decam_from_hsc(hsc), column("ZPHOT", 0.0, 20.0)
