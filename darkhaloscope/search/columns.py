"""What a catalogue says of its columns: unit, meaning and UCD (IVOA, UCD1+ controlled vocabulary 1.5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from darkhaloscope.records import BANDS
from darkhaloscope.results import CANDIDATES

UCDS = {
    "_healpix_29": "pos.healpix", "name": "meta.id;meta.main", "object_name": "meta.id", "host_id": "meta.id",
    "ra": "pos.eq.ra;meta.main", "dec": "pos.eq.dec;meta.main", "brickname": "meta.id;obs.field",
    "type": "meta.code.class;src.morph", "sky_cell": "pos.healpix", "region_split": "meta.code",
    "shape_e1": "src.ellipticity", "shape_e2": "src.ellipticity", "z_host": "src.redshift",
    "ebv": "phot.color.excess", "psf_source": "meta.note", "bad_fraction": "meta.code.qual",
    "padded_fraction": "meta.code.qual", "maskbits_any": "meta.code.qual", "bands": "meta.note;instr.bandpass",
    "merged": "meta.number", "outside": "meta.note", "rank": "stat.rank", "logit": "stat.likelihood",
    "logit_spread": "stat.stdev", "n_models": "meta.number", "probability": "stat.probability",
    "prevalence": "stat.probability", "fpr": "stat.probability", "fpr_high": "stat.probability;stat.max",
    "false_per_sqdeg": "stat.value;src", "false_per_sqdeg_high": "stat.value;stat.max", "known_name": "meta.id.cross",
    "known_type": "meta.code.class", "known_grading": "meta.code.qual", "known_reference": "meta.bib",
    "known_arcsec": "pos.angDistance", "release": "meta.version", "viewer_url": "meta.ref.url",
}  # fmt: skip
_BAND_UCDS = {"g": "em.opt.B", "r": "em.opt.R", "z": "em.opt.I"}
for _band in BANDS:
    UCDS |= {
        f"mag_{_band}": f"phot.mag;{_BAND_UCDS[_band]}",
        f"psfdepth_{_band}": f"phot.mag;stat.max;{_BAND_UCDS[_band]}",
        f"psfsize_{_band}": f"instr.obsty.seeing;{_BAND_UCDS[_band]}",
        f"fwhm_{_band}": f"instr.obsty.seeing;{_BAND_UCDS[_band]}",
        f"sky_sigma_{_band}": f"stat.stdev;phot.flux;{_BAND_UCDS[_band]}",
    }
_UNITS = {"AB mag": "mag", "nmgy/pixel": "", "deg-2": "deg-2", "arcsec": "arcsec", "deg": "deg", "mag": "mag"}
"""Our units -> VOUnits; nanomaggies per pixel have none, and stand in the description."""


@dataclass(frozen=True)
class Described:
    """A column: its VOUnit ("" where it has none), meaning and UCD."""

    name: str
    unit: str
    meaning: str
    ucd: str


def described(names: Sequence[str]) -> list[Described]:
    """Return what to say of columns of results.CANDIDATES, in the order of `names`."""
    columns = {c.name: c for c in CANDIDATES.columns}
    return [Described(n, _UNITS.get(columns[n].unit, ""), columns[n].meaning, UCDS[n]) for n in names]
