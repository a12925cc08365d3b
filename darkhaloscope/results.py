"""Every table of what a trained finder says, column by column; those of the pipeline are in `darkhaloscope.records`."""

from __future__ import annotations

import pyarrow as pa

from darkhaloscope.records import BANDS, HOST, INJECTION, STAMPS, per_band
from darkhaloscope.schema import F32, F64, I8, I32, I64, STR, Column, Schema

SCORES = Schema(
    "scores",
    "a checkpoint's scores, one row a stamp",
    (
        *(
            c
            for c in STAMPS.columns
            if c.name not in {"stamp", "failure_reason", "partner_task_id", "experiment_id"}
        ),
        Column(
            "logit",
            F32,
            "",
            "the network's output, of an ensemble the mean of its calibrated ones; larger is more lens-like",
        ),
        Column(
            "logit_spread",
            F32,
            "",
            "standard deviation of the ensemble's calibrated logits; null for one network",
            nullable=True,
        ),
        Column(
            "probability",
            F32,
            "",
            "calibrated probability; null where no calibration was given",
            nullable=True,
        ),
    ),
)

HARD_NEGATIVES = Schema(
    "hard_negatives",
    "mined negatives: galaxies without a lens that earlier models scored highest, one row a galaxy",
    (
        Column("ra_key", F64, "deg", "right ascension rounded to six decimals"),
        Column("dec_key", F64, "deg", "declination rounded to six decimals"),
        *(
            c
            for c in STAMPS.columns
            if c.name in {"task_id", "host_id", "ra", "dec", "brickname", "region_split", "sample"}
        ),
        Column("logit", F32, "", "of the model that ranked it highest"),
        Column("rank", I32, "", "its rank among that model's negatives, 0 the highest"),
        Column("source_models", pa.list_(pa.string()), "", "models that chose it, best rank first"),
        Column("source_logits", pa.list_(F32), "", "logit each of them gave"),
    ),
)

_OF_STAMP = (
    "stamp", "host_x", "host_y", "psf_source", *(f"{name}_{b}" for name in ("fwhm", "sky_sigma") for b in BANDS),
    "bad_fraction", "padded_fraction", "maskbits_any",
)  # fmt: skip

CANDIDATES = Schema(
    "candidates",
    "search: one row a target, best score first, refused ones last; pixels with the best-ranked rows only",
    (
        Column("_healpix_29", I64, "", "HEALPix cell of the position, order 29, nested: the index of HATS"),
        Column("name", STR, "", "designation by position, DHS JHHMMSS.ss+DDMMSS.s; no two rows share one"),
        Column("object_name", STR, "", "name in the table of positions; empty where it has none"),
        *HOST,
        *(
            Column(c.name, c.type, c.unit, c.meaning, c.leaks_label, True)
            for c in STAMPS.columns
            if c.name in _OF_STAMP
        ),
        Column("bands", STR, "", "bands in which the stamp has pixels, e.g. grz; empty without a stamp"),
        Column("merged", I32, "", "further rows within 1 arcsec that this one stands for"),
        Column("refused", STR, "", "why there is no score; empty where there is one"),
        Column("outside", STR, "", "conditions beyond the model's training, scored because forced; or empty"),
        Column("rank", I32, "", "1 the most lens-like; null where refused", nullable=True),
        Column("logit", F32, "", "mean over the models; larger is more lens-like", nullable=True),
        Column("logit_spread", F32, "", "standard deviation over the models; null for one", nullable=True),
        Column("n_models", I32, "", "models whose logits were averaged"),
        Column("probability", F64, "", "calibrated, of a lens at `prevalence`; may be null", nullable=True),
        Column("prevalence", F64, "", "lenses among targets that `probability` assumes", nullable=True),
        Column("fpr", F64, "", "share of the evaluation's negatives scored at least this", nullable=True),
        Column("fpr_high", F64, "", "upper bound of the 95 % interval of `fpr`", nullable=True),
        Column(
            "false_per_sqdeg", F64, "deg-2", "expected false positives scored at least this", nullable=True
        ),
        Column("false_per_sqdeg_high", F64, "deg-2", "the same with `fpr_high`", nullable=True),
        Column("known_name", STR, "", "known lens or candidate within 5 arcsec; empty where there is none"),
        Column("known_type", STR, "", "its type, e.g. galaxy, cluster, quasar"),
        Column("known_grading", STR, "", "how sure its authors are: confident, probable, ..."),
        Column("known_reference", STR, "", "where it was published"),
        Column("known_arcsec", F32, "arcsec", "how far it is", nullable=True),
        Column("release", STR, "", "survey release, e.g. dr10-south"),
        Column("viewer_url", STR, "", "page of the survey's sky viewer"),
    ),
)

ANCHORS = Schema(
    "anchors",
    "known lenses and contaminants, one row each: where they were looked for, why refused, how they scored",
    (
        Column("anchor_set", STR, "", "set of the anchor; contaminants are one"),
        *(c for c in INJECTION if c.name in {"label", "object_type", "object_name"}),
        Column("reference", STR, "", "who published it"),
        *(c for c in HOST if c.name in {"ra", "dec", "brickname", "type", "region_split"}),
        Column(
            "gate", STR, "", "gate that refused it: table, name, footprint, catalogue, pixels or centroid"
        ),
        Column("refused", STR, "", "why; empty where it was scored"),
        Column("pixels", STR, "", "where its pixels are from: coadd or cutout_service; empty where refused"),
        Column("match_arcsec", F32, "arcsec", "distance to the catalogue's galaxy", nullable=True),
        Column("passes_target_cuts", I8, "", "1: stage 3 would select that galaxy; 0: not; -1: no galaxy"),
        *per_band("mag", "AB mag", "magnitude of the galaxy as observed", nullable=True),
        Column("psfsize_r", F32, "arcsec", "survey PSF size", nullable=True),
        Column("fwhm_r", F32, "arcsec", "half-maximum FWHM", nullable=True),
        Column("psfdepth_r", F32, "AB mag", "5-sigma point-source depth", nullable=True),
        Column("theta_e_arcsec", F64, "arcsec", "published Einstein radius", True, True),
        Column("src_mag_r", F64, "AB mag", "published unlensed magnitude of the source", True, True),
        Column("expected_arc_snr", F64, "", "of a ring of the source's light, in r", True, True),
        Column("visibility", STR, "", "expected visibility of the arc", True),
        Column("logit", F32, "", "the network's output", nullable=True),
    ),
)

SELECTION = Schema(
    "selection",
    "selection function: share of injections over the whole source plane that a finder finds, per cell and threshold",
    (
        *(
            Column(f"{axis}_{end}", F64, unit, f"{edge} edge of the cell in {axis}")
            for axis, unit in (
                ("theta_e_arcsec", "arcsec"),
                ("src_mag_r", "AB mag"),
                ("psfsize_r", "arcsec"),
                ("psfdepth_r", "AB mag"),
                ("mag_r", "AB mag"),
            )
            for end, edge in (("low", "lower"), ("high", "upper"))
        ),
        Column("fpr", STR, "", "false-positive rate of the threshold, by name"),
        Column("threshold", F64, "", "logit from which an injection counts as found"),
        Column("n", I64, "", "injections in the cell"),
        Column("n_found", I64, "", "of those, found"),
        Column("n_hosts", I64, "", "galaxies that the injections of the cell share"),
        Column(
            "sum_n_n", I64, "", "sum over hosts of (injections in the cell)^2, for intervals of several cells"
        ),
        Column("sum_n_found", I64, "", "sum over hosts of injections times found"),
        Column("sum_found_found", I64, "", "sum over hosts of found^2"),
        Column("completeness", F64, "", "n_found / n; null in an empty cell", nullable=True),
        Column(
            "ci_low",
            F64,
            "",
            "95 % lower bound, Wilson with hosts as clusters; null in an empty cell",
            nullable=True,
        ),
        Column(
            "ci_high",
            F64,
            "",
            "95 % upper bound, Wilson with hosts as clusters; null in an empty cell",
            nullable=True,
        ),
    ),
)

SCHEMAS = SCORES, HARD_NEGATIVES, CANDIDATES, ANCHORS, SELECTION
