"""Every table of the pipeline: its columns, their types, units and meaning.

A column exists in exactly one schema constant below. Tables that carry another table's columns (a stamp
carries its manifest row) share the `Column` objects. Columns marked `leaks_label` know the injection: a
model that saw one could read off the answer, so `allowed_metadata()` lists only the others.
"""

from __future__ import annotations

import pyarrow as pa

from darkhaloscope.schema import F32, F64, I8, I32, I64, STR, Column, Schema

BANDS = "grz"
REFERENCE = BANDS.index("r")  # the band of sizes, masked shares and "the" PSF
PIXEL_SCALE_ARCSEC = 0.262
STAMP_SIZE = 64
SPLITS = ("train", "val", "test")


def stamp_metadata(dtype: str = "float32", size: int = STAMP_SIZE, bands: str = BANDS) -> dict[str, str]:
    """Return the file metadata that says how a `stamp` cell is laid out."""
    return {
        "stamp_dtype": dtype,
        "stamp_shape": f"{len(bands)},{size},{size}",
        "stamp_order": "C (band, y, x), little endian",
        "stamp_unit": "nanomaggies per pixel",
        "bands": bands,
    }


def per_band(
    name: str, unit: str, meaning: str, leaks_label: bool = False, nullable: bool = False
) -> tuple[Column, ...]:
    """One float32 column per band: `name_g`, `name_r`, `name_z`."""
    return tuple(
        Column(f"{name}_{b}", pa.float32(), unit, f"{meaning}, {b} band", leaks_label, nullable)
        for b in BANDS
    )


def _leak(name: str, type_: pa.DataType, unit: str, meaning: str, nullable: bool = False) -> Column:
    return Column(name, type_, unit, meaning, True, nullable)


HOST = (
    Column("host_id", I64, "", "release << 40 | brickid << 16 | objid of the galaxy in the catalogue"),
    Column("ra", F64, "deg", "right ascension, J2000"),
    Column("dec", F64, "deg", "declination, J2000"),
    Column("brickname", STR, "", "brick the galaxy is primary in"),
    Column("type", STR, "", "Tractor morphological type"),
    Column("sky_cell", I64, "", "HEALPix cell, nside 64, nested"),
    Column("region_split", STR, "", "train, val or test; a cell, and so a host, is in one"),
    Column("ebv", F32, "mag", "E(B-V) of the SFD map"),
    *per_band("mag", "AB mag", "magnitude of the host as observed (not dereddened)"),
    *per_band("psfsize", "arcsec", "survey PSF size (2.3548 sqrt(Neff/4pi); not a half-maximum FWHM)"),
    *per_band("psfdepth", "AB mag", "5-sigma point-source depth"),
    Column("shape_e1", F32, "", "ellipticity component 1 of the catalogue's model", nullable=True),
    Column("shape_e2", F32, "", "ellipticity component 2 of the catalogue's model", nullable=True),
    Column("z_host", F32, "", "redshift of the galaxy", nullable=True),
)

TARGETS = Schema(
    "targets",
    "stage 3: galaxies that pass a target variant's cuts, one row a galaxy",
    (
        *HOST,
        Column("mag_w1", F32, "AB mag", "WISE W1 magnitude as observed"),
        *per_band("mag_dered", "AB mag", "magnitude corrected for Galactic extinction"),
        Column("mag_dered_w1", F32, "AB mag", "W1 magnitude corrected for Galactic extinction"),
        Column("shape_r", F32, "arcsec", "half-light radius of the catalogue's model", nullable=True),
        Column("psf_source", STR, "", "where psfsize and psfdepth came from: catalogue or brick_table"),
        Column(
            "z_host_source",
            STR,
            "",
            "where z_host is from: spectrum, photometric, table, or lrg_colours (a colour relation with scatter)",
        ),
    ),
)

SAMPLES = ("synthetic_positive", "real_positive", "random_negative", "hard_negative", "mimic")
CATALOGUE = "catalogue"  # control_kind of a row from a catalogue: it has no injection, not even a virtual one
NO_SOURCE = "none"  # its source_kind; the floats of its injection are NaN

INJECTION = (
    Column("experiment_id", STR, "", "experiment the row belongs to"),
    Column("task_id", STR, "", "32 hex digits: digest of everything that defines the stamp", True),
    _leak("is_control", I8, "", "1: nothing was added to the coadd; 0: an arc was"),
    _leak(
        "control_kind", STR, "", "none (an injection), paired (host of its partner), unpaired or catalogue"
    ),
    _leak("label", I8, "", "1: the stamp shows a lens, added or real; 0: it does not"),
    _leak("sample", STR, "", f"part of the training mixture: {', '.join(SAMPLES)}"),
    _leak("object_type", STR, "", "what a catalogue says it is (lens, ring, merger ...); empty elsewhere"),
    _leak("object_name", STR, "", "its name in the catalogue; empty elsewhere"),
    _leak("partner_task_id", STR, "", "task_id of the paired row; empty where there is none"),
    _leak("replicate", I32, "", "number of the repeat of this host"),
    _leak("config_id", I32, "", "index of the configuration in its grid; -1 where there is none"),
    _leak("source_kind", STR, "", "light of the source: sersic, image, or none (a catalogue row)"),
    _leak("source_id", I64, "", "index in the source bank; -1 where it is not from one"),
    _leak("theta_e_arcsec", F64, "arcsec", "circularised Einstein radius (of the virtual arc in a control)"),
    _leak("lens_q", F64, "", "axis ratio of the deflector"),
    _leak("lens_phi_rad", F64, "rad", "major axis of the deflector from +x"),
    _leak("shear", F64, "", "external shear strength"),
    _leak("shear_phi_rad", F64, "rad", "direction of the external shear from +x"),
    _leak("src_x_arcsec", F64, "arcsec", "source centre minus deflector centre, +x"),
    _leak("src_y_arcsec", F64, "arcsec", "source centre minus deflector centre, +y"),
    _leak("src_dmag", F64, "mag", "unlensed source r minus host r, both outside the Galaxy"),
    _leak("src_reff_arcsec", F64, "arcsec", "half-light radius of the source, product-averaged axis"),
    _leak("src_e", F64, "", "source ellipticity, q = (1-e)/(1+e)"),
    _leak("src_phi_rad", F64, "rad", "major axis of the source from +x"),
    _leak("src_n", F64, "", "Sersic index of the source; 0 for an image"),
    *(
        _leak(f"src_mag_{b}", F64, "AB mag", f"unlensed source magnitude outside the Galaxy, {b}")
        for b in BANDS
    ),
)

MANIFEST = Schema(
    "manifest",
    "stage 4a: one row a stamp to make; controls carry the virtual injection their host would have had, rows of a "
    "catalogue none",
    (*INJECTION, *HOST),
)

ASSETS = Schema(
    "assets",
    "stage 4b: one row a brick of the coadd cache",
    (
        Column("brickname", STR, "", "brick"),
        Column("status", STR, "", "cached, missing (not in the survey) or failed"),
        Column(
            "cause", STR, "", "kinds of what is wrong, e.g. HTTP 503, stalled, cut off, not FITS, not found"
        ),
        Column("reason", STR, "", "why it is not cached, or which files the survey does not have"),
        Column("bands", STR, "", "bands with an image and an inverse variance, e.g. grz"),
        Column("files", I32, "", "number of files cached"),
        Column("bytes", I64, "byte", "size of those files"),
        Column(
            "by_checksum", I32, "", "files of this try whose sha256 is the survey's; others: by structure"
        ),
        Column("seconds", F32, "s", "time this try took"),
        Column("tried", F64, "s", "when it ended, Unix time; a later row of a brick replaces an earlier one"),
    ),
)

STAMPS = Schema(
    "stamps",
    "stage 4c and pack: one row a manifest row, made or failed with its reason",
    (
        *MANIFEST.columns,
        Column("cutout_ok", I8, "", "1: the stamp has pixels in every band"),
        Column("failure_reason", STR, "", "why there is no stamp; empty where there is"),
        Column("stamp", pa.binary(), "nmgy/pixel", "pixels, C order (band, y, x)", nullable=True),
        Column("host_x", F32, "pixel", "host in the stamp, 0 at the first pixel's centre", nullable=True),
        Column("host_y", F32, "pixel", "host in the stamp, 0 at the first pixel's centre", nullable=True),
        Column("psf_source", STR, "", "where psfsize came from: map, brick_table, catalogue or kernel"),
        *per_band("fwhm", "arcsec", "half-maximum FWHM of the PSF", nullable=True),
        *per_band("sky_sigma", "nmgy/pixel", "1/sqrt(median inverse variance) of the stamp", nullable=True),
        Column("bad_fraction", F32, "", "share of pixels masked or without data in any band", nullable=True),
        Column("padded_fraction", F32, "", "share of pixels beyond the coadds that were read", nullable=True),
        Column("maskbits_any", I32, "", "bitwise or of maskbits over the stamp; -1: no maskbits file"),
        _leak("metrics_ok", I8, "", "1: the arc's measurements can be trusted"),
        _leak("metrics_reason", STR, "", "why they can not; empty where they can"),
        _leak("magnification", F32, "", "lensed over unlensed flux, whole plane, before the PSF", True),
        _leak("arc_snr", F32, "", "matched-filter SNR, bands in quadrature, correlation-corrected", True),
        *per_band("arc_snr", "", "matched-filter SNR, correlation-corrected", True, True),
        _leak("arc_snr_max_pixel", F32, "", "the seed's: largest single-pixel arc/sigma, any band", True),
        *per_band("arc_flux", "nmgy", "flux of the arc inside the stamp", True, True),
        *per_band("arc_mag", "AB mag", "lensed source over the whole plane, as observed", True, True),
        *per_band("total_mag", "AB mag", "host and lensed source together, as observed", True, True),
        _leak("arc_core_fraction", F32, "", "share of the arc's r flux within one FWHM of the host", True),
        _leak("arc_masked_fraction", F32, "", "share of the arc's r flux on bad pixels", True),
        _leak("theta_over_psf", F32, "", "theta_e_arcsec / psfsize_r, the seed's theta/PSF", True),
        _leak("theta_over_fwhm", F32, "", "theta_e_arcsec / half-maximum FWHM in r", True),
    ),
)

FAILURES = Schema(
    "failures",
    "quarantine: one row a brick (or file) that could not be read, with the rows it cost",
    (
        Column("stage", STR, "", "stage that met it"),
        Column("unit", STR, "", "brick or file"),
        Column("rows", I64, "", "rows that failed with it"),
        Column("error", STR, "", "name of the exception"),
        Column("reason", STR, "", "its message"),
    ),
)

_RATE = (
    Column("rows", STR, "", "all (every injection) or clean (metrics_ok only)"),
    Column("n", I64, "", "injections in the bin"),
    Column("n_detectable", I64, "", "of those, arc_snr at least the stated threshold"),
    Column("n_hosts", I64, "", "galaxies that the injections of the bin share"),
    Column("completeness", F64, "", "n_detectable / n; null in an empty bin", nullable=True),
    Column(
        "ci_low",
        F64,
        "",
        "95 % lower bound, Wilson with hosts as clusters; null in an empty bin",
        nullable=True,
    ),
    Column(
        "ci_high",
        F64,
        "",
        "95 % upper bound, Wilson with hosts as clusters; null in an empty bin",
        nullable=True,
    ),
    Column("snr_threshold", F64, "", "the threshold"),
)
_BIN = (
    Column("axis", STR, "", "quantity that is binned"),
    Column("low", F64, "see axis", "lower edge of the bin"),
    Column("high", F64, "see axis", "upper edge of the bin"),
)

COMPLETENESS = Schema(
    "completeness",
    "stage 4d: share of injections whose arc could be measured and stands out, per bin",
    (*_BIN, *_RATE),
)

COMPLETENESS_CELLS = Schema(
    "completeness_cells",
    "stage 4d: the same per cell of two quantities",
    (
        *_BIN,
        Column("axis_2", STR, "", "second quantity that is binned"),
        Column("low_2", F64, "see axis_2", "lower edge of its bin"),
        Column("high_2", F64, "see axis_2", "upper edge of its bin"),
        *_RATE,
    ),
)

SHARDS = Schema(
    "shards",
    "index of the packed shards, one row a shard",
    (
        Column("split", STR, "", "train, val or test"),
        Column("shard", I64, "", "number of the shard in its split, and of its chunk"),
        Column("file", STR, "", "its file, below the output of the pack stage"),
        Column("rows", I64, "", "stamps"),
        Column("lenses", I64, "", "of those, stamps that show a lens"),
        Column("others", I64, "", "of those, stamps that do not"),
        Column("bytes", I64, "byte", "size of the file"),
        Column("sha256", STR, "", "of the file"),
        Column("bricks", I64, "", "bricks that its stamps are from"),
        Column("same_brick_neighbours", I64, "", "stamps that follow one of the same brick"),
        Column("same_brick_by_chance", F64, "", "how many such there would be in a random order"),
    ),
)

SCHEMAS = (
    TARGETS, MANIFEST, ASSETS, STAMPS, FAILURES, COMPLETENESS, COMPLETENESS_CELLS, SHARDS,
)  # fmt: skip
"""Tables of the pipeline; `darkhaloscope.results` has those of what a trained finder says."""


def allowed_metadata() -> list[str]:
    """Return the numeric stamp columns a model may be given: an allow-list built from `leaks_label`.

    Positions and identifiers are not measurements, and are left out with the rest.
    """
    not_features = {"host_id", "ra", "dec", "sky_cell", "cutout_ok", "maskbits_any"}
    return [
        c.name
        for c in STAMPS.columns
        if not c.leaks_label and (pa.types.is_floating(c.type)) and c.name not in not_features
    ]
