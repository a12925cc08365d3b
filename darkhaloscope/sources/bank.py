"""A source bank: images of galaxies with their sizes, colours and splits, in one HDF5 file.

Layout (that of the earlier generations, and what it lacked):

    images (n, y, x) float32      unit flux; the galaxy's centre is the middle of the stamp
    components (n, 2, y, x)       optional: old and young light, unit flux each
    meta/index (n,) int64         number of the galaxy in its catalogue
    meta/hlr_arcsec (n,) float32  half-light radius, PSF removed, product-averaged axis
    meta/hlr_image_arcsec (n,)    the same as measured on the image, PSF included
    meta/clumpiness, snr, mag_r, g_r, r_z, redshift, axis_ratio (n,) float32; NaN where not known
    meta/young_g, young_r, young_z (n,) float32   share of the young light; with components only
    meta/split (n,) fixed-length strings: train, val or test
    attributes src_pixscale_arcsec, stamp_size, created_utc, galaxy_kind, digest

A galaxy's number in the bank, its row, is the `source_id` of manifests; it belongs to one split.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from darkhaloscope.draws import digest, uniforms
from darkhaloscope.errors import Explained
from darkhaloscope.records import BANDS, SPLITS

SPLIT_STREAM = 0
REQUIRED = ("index", "hlr_arcsec", "hlr_image_arcsec", "clumpiness", "split")
OPTIONAL = ("snr", "mag_r", "g_r", "r_z", "redshift", "axis_ratio")
YOUNG = tuple(f"young_{b}" for b in BANDS)


class BankError(Explained, ValueError):
    """A source bank that cannot be used; the message names the file, what was found and what was expected."""


@dataclass(frozen=True)
class SourceIndex:
    """What a bank knows of its galaxies, without their pixels; every field (n,), row = source_id.

    hlr_arcsec: half-light radius with the PSF removed. hlr_image_arcsec: as measured on the image.
    g_r, r_z, mag_r: DECam AB magnitudes, NaN where not known. digest: of the bank's content.
    """

    digest: str
    pixel_arcsec: float
    index: np.ndarray
    split: np.ndarray
    hlr_arcsec: np.ndarray
    hlr_image_arcsec: np.ndarray
    clumpiness: np.ndarray
    snr: np.ndarray
    mag_r: np.ndarray
    g_r: np.ndarray
    r_z: np.ndarray
    redshift: np.ndarray
    axis_ratio: np.ndarray

    def __len__(self) -> int:
        return len(self.index)

    def ids(self, split: str) -> np.ndarray:
        """Return the source_ids of a split, ascending int64."""
        return np.flatnonzero(self.split == split).astype(np.int64)


def split_of(index: np.ndarray, kind: str, fractions: tuple[float, float, float]) -> np.ndarray:
    """Return train, val or test for each galaxy: a hash of its catalogue number, so one galaxy has one split.

    Args:
        index: (n,) numbers in the catalogue.
        kind: name of the catalogue; equal numbers of two catalogues are two galaxies.
        fractions: of train, val, test; they add to 1.
    """
    draw = uniforms([digest("source split", kind, int(i)) for i in index], SPLIT_STREAM, 1)[:, 0]
    return np.array(SPLITS, object)[np.searchsorted(np.cumsum(fractions[:2]), draw, side="right")]


class Bank:
    """An open bank: `index` (its `SourceIndex`) and images by source_id."""

    def __init__(
        self,
        index: SourceIndex,
        images: h5py.Dataset | np.ndarray,
        components: h5py.Dataset | np.ndarray | None = None,
        young: np.ndarray | None = None,
    ) -> None:
        self.index, self._images, self._components, self._young = index, images, components, young

    def layers(self, source_id: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the layers whose sum is each galaxy: one, or old and young light with their own colours.

        Args:
            source_id: (m,).

        Returns:
            Pairs of images (m, y, x) float32, unit flux, and the layer's share of the galaxy's flux per
            band, (m, band); shares of the layers add to 1.

        Raises:
            BankError: an id that the bank does not have.
        """
        ids = np.asarray(source_id, np.int64)
        if ids.size and not (ids.min() >= 0 and ids.max() < len(self.index)):
            raise BankError(
                f"source_ids {ids.min()} to {ids.max()} of a bank of {len(self.index)} galaxies; "
                "the rows were drawn from another bank"
            )
        if self._components is None or self._young is None:
            return [(self._read(self._images, ids), np.ones((len(ids), len(BANDS))))]
        both, young = self._read(self._components, ids), self._young[ids].astype(np.float64)
        return [(both[:, 0], 1 - young), (both[:, 1], young)]

    @staticmethod
    def _read(data: h5py.Dataset | np.ndarray, ids: np.ndarray) -> np.ndarray:
        wanted, where = np.unique(ids, return_inverse=True)  # h5py reads ascending, distinct rows
        return np.asarray(data[wanted], np.float32)[where]


def make_index(meta: Mapping[str, np.ndarray], pixel_arcsec: float, content: str) -> SourceIndex:
    """Return the index of columns by name; optional ones that are missing become NaN."""
    n = len(meta["index"])
    columns = {name: np.asarray(meta.get(name, np.full(n, np.nan)), np.float32) for name in OPTIONAL}
    columns |= {name: np.asarray(meta[name], np.float32) for name in REQUIRED[1:4]}
    split = np.asarray(meta["split"], object)
    return SourceIndex(content, pixel_arcsec, np.asarray(meta["index"], np.int64), split, **columns)


def write_bank(
    path: str | Path,
    images: np.ndarray,
    meta: Mapping[str, np.ndarray],
    pixel_arcsec: float,
    kind: str,
    components: np.ndarray | None = None,
) -> None:
    """Write a bank; it appears under `path` only when complete.

    Args:
        path: local file.
        images: (n, y, x), any flux: each is divided by its sum.
        meta: columns of the module's docstring by name, split as strings.
        pixel_arcsec: size of a pixel.
        kind: real or synthetic, and of what.
        components: (n, 2, y, x) old and young light, each divided by its sum.

    Raises:
        BankError: an image has no light, or is not finite.
    """
    unit = _unit_flux(images, "image")
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    stored: dict[str, np.ndarray] = {"images": unit}
    if components is not None:
        flat = components.reshape(-1, *images.shape[1:])
        stored["components"] = _unit_flux(flat, "component").reshape(components.shape)
    with h5py.File(temporary, "w") as file:
        for name, data in stored.items():
            chunks = (1, *data.shape[1:])
            file.create_dataset(name, data=data, chunks=chunks, compression="gzip", shuffle=True)
        for name, values in meta.items():
            text = name == "split"
            file.create_dataset(f"meta/{name}", data=np.asarray(values, "S5" if text else None))
        file.attrs["src_pixscale_arcsec"] = pixel_arcsec
        file.attrs["stamp_size"] = images.shape[-1]
        file.attrs["created_utc"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        file.attrs["galaxy_kind"] = kind
        file.attrs["digest"] = content_digest(stored, meta)
    temporary.replace(path)


def content_digest(stored: Mapping[str, np.ndarray], meta: Mapping[str, np.ndarray]) -> str:
    """Return 32 hex digits that stand for images and columns: what stamps made from a bank depend on."""
    state = hashlib.blake2b(digest_size=16)
    for name in sorted(stored):
        state.update(name.encode() + np.ascontiguousarray(stored[name], "<f4").tobytes())
    for name in sorted(meta):
        state.update(name.encode() + "|".join(str(v) for v in np.asarray(meta[name]).tolist()).encode())
    return state.hexdigest()


def _unit_flux(images: np.ndarray, what: str) -> np.ndarray:
    total = images.sum(axis=(-2, -1), dtype=np.float64)
    if bad := np.flatnonzero(~(np.isfinite(total) & (total > 0))).tolist():
        raise BankError(
            f"{what}s {bad[:5]} have flux {total[bad[:5]].tolist()}; expected positive, finite light"
        )
    return (images / total[:, None, None]).astype(np.float32)
