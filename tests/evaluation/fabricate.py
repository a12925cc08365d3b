"""Fabricated tables with the real schemas: stamps, scores drawn from two normals, a whole workspace."""

import json

import numpy as np
import pyarrow as pa

from darkhaloscope.dataset import commit_chunk, content_hash, write_part
from darkhaloscope.draws import digest
from darkhaloscope.experiment import Experiment
from darkhaloscope.injection.arcs import arc_of
from darkhaloscope.injection.completeness import completeness_table, count
from darkhaloscope.records import BANDS, COMPLETENESS, FAILURES, STAMP_SIZE, STAMPS, stamp_metadata
from darkhaloscope.results import SCORES
from darkhaloscope.schema import to_batch
from evaluation.evaluate import main as evaluate
from evaluation.section import Picture, Section, Table
from evaluation.section import write as write_section


def fabricated_columns(n, seed=0, split="test", n_cells=30):
    """Every column of STAMPS but the pixels, (n,) each; every second row is an injection."""
    rng = np.random.default_rng(seed)
    columns = {}
    for column in STAMPS.columns:
        if pa.types.is_string(column.type):
            columns[column.name] = np.full(n, "", object)
        elif pa.types.is_integer(column.type):
            columns[column.name] = np.zeros(n, np.int64)
        else:
            columns[column.name] = rng.uniform(0.5, 1.5, n)
    control = np.arange(n) % 2
    columns |= {
        "task_id": np.array([digest("fabricated", seed, i) for i in range(n)], object),
        "host_id": np.arange(n) + 1_000_000 * seed,
        "sky_cell": rng.integers(0, n_cells, n),
        "is_control": control,
        "label": 1 - control,
        "sample": np.where(control == 1, "random_negative", "synthetic_positive").astype(object),
        "control_kind": np.where(control == 1, "unpaired", "none").astype(object),
        "experiment_id": np.full(n, "fabricated", object),
        "region_split": np.full(n, split, object),
        "brickname": np.full(n, "0591m305", object),
        "type": rng.choice(["DEV", "SER", "EXP"], n).astype(object),
        "source_kind": np.full(n, "sersic", object),
        "psf_source": np.full(n, "map", object),
        "cutout_ok": np.ones(n, np.int8),
        "metrics_ok": np.ones(n, np.int8),
        "theta_e_arcsec": rng.uniform(0.5, 2.5, n),
        "lens_q": rng.uniform(0.6, 0.95, n),
        "shear": np.full(n, 0.02),
        "src_x_arcsec": rng.normal(0, 0.15, n),
        "src_y_arcsec": rng.normal(0, 0.15, n),
        "src_e": rng.uniform(0, 0.4, n),
        "src_n": np.ones(n),
        "src_reff_arcsec": rng.uniform(0.1, 0.25, n),
        "ebv": np.full(n, 0.03),
        **{f"src_mag_{b}": rng.uniform(21.5, 23.5, n) for b in BANDS},
        **{f"fwhm_{b}": rng.uniform(0.8, 1.3, n) for b in BANDS},
        "theta_over_fwhm": rng.uniform(0.3, 2.5, n),
        "arc_snr": rng.lognormal(3, 1, n),
        "host_x": np.full(n, 32.0),
        "host_y": np.full(n, 32.0),
        "sky_sigma_g": np.full(n, 0.002),
        "sky_sigma_r": np.full(n, 0.003),
        "sky_sigma_z": np.full(n, 0.008),
        **{f"mag_{b}": rng.uniform(18, 21, n) for b in BANDS},
        **{f"psfsize_{b}": rng.uniform(1.0, 1.6, n) for b in BANDS},
        **{f"psfdepth_{b}": rng.uniform(23.8, 25.2, n) for b in BANDS},
    }
    return columns


def fabricated_pixels(columns, seed=0):
    """Pixels of a round galaxy on sky noise, a blue ring around it in injections; (n, band, y, x) float32."""
    rng = np.random.default_rng(seed)
    n = len(columns["task_id"])
    y, x = np.mgrid[:STAMP_SIZE, :STAMP_SIZE] - 32.0
    radius = np.hypot(x, y) * 0.262
    colour = np.array([0.25, 0.7, 1.3])[:, None, None]
    sky = np.stack([columns[f"sky_sigma_{b}"] for b in BANDS], axis=1)[:, :, None, None]
    image = rng.normal(size=(n, 3, STAMP_SIZE, STAMP_SIZE)) * sky + 0.5 * colour * np.exp(-radius / 0.6)
    ring = np.exp(-0.5 * ((radius - np.asarray(columns["theta_e_arcsec"])[:, None, None]) / 0.5) ** 2)
    arc = 0.03 * ring[:, None] * np.array([1.0, 0.8, 0.7])[:, None, None]
    return (image + arc * (np.asarray(columns["is_control"]) == 0)[:, None, None, None]).astype(np.float32)


def write_stamps(root, columns, pixels, dtype="float16", rows_per_group=64, parts=1):
    """Write a committed STAMPS dataset of `parts` files."""
    schema = STAMPS.arrow(stamp_metadata(dtype))
    cells = np.array([p.astype(dtype).tobytes() for p in pixels], object)
    cells[np.asarray(columns["cutout_ok"]) == 0] = None
    batch = to_batch(STAMPS, {**columns, "stamp": cells}, stamp_metadata(dtype))
    pieces = np.array_split(np.arange(batch.num_rows), parts)
    written = [
        write_part(str(root), 0, i, [batch.slice(p[0], len(p))], schema, rows_per_group=rows_per_group)
        for i, p in enumerate(pieces)
    ]
    commit_chunk(str(root), 0, written)


def score_columns(columns, logit):
    """Columns of SCORES of one network without calibration."""
    made = {"logit": np.asarray(logit, np.float32)}
    made |= {n: pa.nulls(len(made["logit"]), pa.float32()) for n in ("logit_spread", "probability")}
    return {n: columns[n] for n in SCORES.names if n not in made} | made


def write_scores(root, columns, logit, chunk=0, provenance=None):
    """Write one committed file of a SCORES dataset."""
    provenance = {"checkpoint": "c" * 16, "data": "d" * 16} if provenance is None else provenance
    schema = SCORES.arrow({"scored_with": json.dumps(provenance, sort_keys=True)})
    batch = to_batch(SCORES, score_columns(columns, logit))
    commit_chunk(str(root), chunk, [write_part(str(root), chunk, 0, [batch], schema)])


def drawn_logits(columns, seed=0, separation=2.5):
    """Logits from two normals of unit width, by class."""
    rng = np.random.default_rng(seed)
    positive = np.asarray(columns["is_control"]) == 0
    return (rng.normal(size=len(positive)) + separation * positive).astype(np.float32)


EXPERIMENT = Experiment("fabricated", "made_up", "train_fabricated", "nothing here was ever observed")
HOSTILE = "<script>alert('brick')</script> & \"quoted\" ${x} {{ 7 * 6 }}"


def write_record(root, stage, counts, inputs, experiment=None):
    """Write a stage's `_stage_config.json`."""
    record = {
        "stage": stage,
        "state": "done",
        "hash": digest(stage)[:16],
        "code_version": "0",
        "inputs": inputs,
    }
    record |= {
        "experiment": (experiment or EXPERIMENT).as_dict(),
        "counts": counts,
        "seconds": 12.3,
        "options": {},
    }
    root.mkdir(parents=True, exist_ok=True)
    (root / "_stage_config.json").write_text(json.dumps(record))


def epochs(n=6):
    """Records of a trainer's log."""
    for i in range(n):
        rate = 0.8 * (1 - 0.6**i)
        yield {
            "event": "epoch", "step": 50 * i, "epoch": i, "train_loss": 0.7 * 0.7**i,
            "val_loss": 0.7 * 0.75**i + 0.05, "auroc": 0.99 - 0.4 * 0.5**i, "auroc_low": 0.9, "auroc_high": 0.99,
            "tpr@fpr1e-2": rate,
            "tpr@fpr1e-2_low": max(rate - 0.1, 0), "tpr@fpr1e-2_high": rate + 0.1, "n_positives": 500,
            "n_negatives": 500, "unresolved": ["tpr@fpr1e-3", "tpr@fpr1e-4"], "best_epoch": i,
        }  # fmt: skip


SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><circle cx="4" cy="4" r="3" fill="#1f6fb4"/></svg>'


def write_sections(folder, hashes):
    """Write a section that passes, with a wide table and pictures, and one that fails."""
    (folder / "core.svg").write_text(SVG)
    (folder.parent / "outside.svg").write_text(SVG.replace("circle", "ellipse"))
    many = [f"column {i} with a long name" for i in range(12)]
    wide = Table(
        ["gate", *many], [["core", *(i / 7 for i in range(11)), None], [HOSTILE, *range(12)]], "by gate"
    )
    pictures = [
        Picture("core", "core.svg", HOSTILE),
        Picture("lost", "lost.png"),
        Picture("out", "../outside.svg"),
    ]
    gates = Section(
        "Shortcut gates", "All hold. " + HOSTILE, hashes, "pass", [wide], pictures, {"core": {"auc": 0.51}}
    )
    write_section(str(folder), "gates", gates)
    write_section(str(folder), "probe-real", Section("Realism probe", "It can tell.", {}, "fail"))


def write_workspace(root, n=240):
    """Write a whole workspace of the smoke run's layout, with a hostile string wherever text is free."""
    where = {s: root / s / EXPERIMENT.variant / EXPERIMENT.experiment_id
             for s in ("phase3", "phase4a", "phase4b", "phase4c", "phase4d", "pack")}  # fmt: skip
    columns = fabricated_columns(n)
    columns["brickname"][:] = HOSTILE
    columns["cutout_ok"][:3] = 0
    blank = np.zeros((n, 3, STAMP_SIZE, STAMP_SIZE), np.float32)
    cells = {"stamp": [b.tobytes() for b in blank]}
    rows = to_batch(STAMPS, {**columns, **cells}, stamp_metadata())
    light = arc_of(rows, EXPERIMENT) * (columns["is_control"] == 0)[:, None, None, None]
    host = fabricated_pixels({**columns, "is_control": np.ones(n)})
    write_stamps(where["phase4c"], columns, host + light, "float32")
    for split in ("train", "val", "test"):
        write_stamps(where["pack"] / f"split={split}", columns, host + light)
    table = completeness_table(count(rows, 10.0), 10.0)
    commit_chunk(
        str(where["phase4d"]), 0, [write_part(str(where["phase4d"]), 0, 0, [table], COMPLETENESS.arrow())]
    )
    failure = {"stage": "4c", "unit": HOSTILE, "rows": 3, "error": "BrickMissing", "reason": HOSTILE}
    quarantine = str(where["phase4c"] / "quarantine")
    batch = to_batch(FAILURES, {k: [v] for k, v in failure.items()})
    commit_chunk(quarantine, 0, [write_part(quarantine, 0, 0, [batch], FAILURES.arrow())])
    write_record(
        where["phase3"],
        "3",
        {
            "cuts": {"read": 5_000, "flux in r, z or W1 not positive or not measured": 9, "targets": 400},
            "sweeps": 2,
            "failed_sweeps": 0,
        },
        {},
    )
    write_record(
        where["phase4a"], "4a", {"targets": 400, "hosts": 120, "rows": n}, {"targets": digest("3")[:16]}
    )
    write_record(where["phase4b"], "4b", {"rows": 6, "cached": 5, "reasons": {"0001m001": HOSTILE}},
                 {"manifest": digest("4a")[:16]})  # fmt: skip
    write_record(where["phase4c"], "4c", {"rows": n, "ok": n - 3, "failed": 3, "reasons": {HOSTILE: 3}},
                 {"manifest": digest("4a")[:16], "coadds": digest("4b")[:16]})  # fmt: skip
    write_record(where["phase4d"], "4d", {"rows": n}, {"stamps": digest("4c")[:16]})
    write_record(where["pack"], "pack", {"rows": n - 3, "left_out_failed": 3}, {"stamps": digest("4c")[:16]})
    trained, scored = root / "training" / EXPERIMENT.name, root / "scores" / EXPERIMENT.name
    trained.mkdir(parents=True)
    facts = {
        s: {"content_hash": content_hash(str(where["pack"] / f"split={s}")), "rows": n - 3}
        for s in ("train", "val")
    }
    (trained / "config.json").write_text(json.dumps({"device": "cpu", "parameters": 194_000, "data": facts}))
    (trained / "log.jsonl").write_text("".join(json.dumps(e) + "\n" for e in epochs()) + '{"event": "ep')
    (root / "summary.json").write_text(json.dumps({"seconds": {"sky": 31.5, "train": 62.0}}))
    made = {k: v[3:] for k, v in columns.items()}
    write_scores(scored, made, drawn_logits(made))
    data = content_hash(str(where["pack"] / "split=test"))
    write_record(scored, "score", {"rows_in": n, "scored": n - 3, "without_stamp": 3},
                 {"data": data, "checkpoint": "c" * 16})  # fmt: skip
    assert evaluate(["--scores", str(scored), "--out", str(root / "evaluation"), "--resamples", "50"]) == 0
    write_sections(root / "evaluation", {"scores": content_hash(str(scored)), "checkpoint": "c" * 64})
