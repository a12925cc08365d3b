"""Stage 3 on several sweeps: stopped and resumed, overlapping, from a web server, with redshifts, and empty."""

import argparse
import shutil
from pathlib import Path

import fitsio
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from survey_testing import Server, galaxies

from darkhaloscope.dataset import DatasetError, committed_chunks, read_table
from darkhaloscope.experiment import from_dict
from darkhaloscope.stage import place
from darkhaloscope.survey import bricks
from spark_jobs import targets

pytestmark = pytest.mark.xdist_group("spark")

FIELDS = {"sweep-350m005-360p000": (359.9, -0.2), "sweep-000m005-010p000": (0.05, -0.2),
          "sweep-000p000-010p005": (0.05, 0.2), "sweep-150p000-160p005": (150.1, 2.1)}  # fmt: skip
PER_SWEEP = 30
ARCSEC = 1 / 3600


def field(name, n=PER_SWEEP):
    ra, dec = FIELDS[name]
    rng = np.random.default_rng(list(FIELDS).index(name))
    rows = galaxies(n, ra=ra + rng.uniform(-0.04, 0.04, n), dec=dec + rng.uniform(-0.1, 0.1, n))
    rows["OBJID"] += 100 * list(FIELDS).index(name)
    return rows


def seam(ra):
    """One galaxy at the seam of two sweeps, as the brick on this side of it has it."""
    return galaxies(1, ra=[ra % 360], dec=[-0.2], OBJID=900)


@pytest.fixture
def release(tmp_path):
    """Four sweeps: a galaxy at RA 0 is in two, seen 0.4 arcsec apart by two bricks; and a list of them."""
    sky = tmp_path / "sky"
    (sky / "sweep" / "10.1").mkdir(parents=True)
    for name in FIELDS:
        side = {"sweep-350m005-360p000": -0.2, "sweep-000m005-010p000": 0.2}.get(name)
        extra = [] if side is None else [seam(side * ARCSEC)]
        fitsio.write(str(sky / f"sweep/10.1/{name}.fits"), np.concatenate([field(name), *extra]))
    (sky / "sweeps.txt").write_text("".join(f"sweep/10.1/{name}.fits\n" for name in FIELDS))
    everything = np.concatenate([fitsio.read(str(f)) for f in (sky / "sweep/10.1").iterdir()])
    names = np.unique(bricks.names_at(everything["RA"], everything["DEC"]))
    ra, dec = bricks.brick_centre(*bricks.parse_names(names))
    table = {"brickname": names.astype("S8"), "ra": ra, "dec": dec, "ebv": np.full(len(ra), 0.03)}
    for band in "grz":
        table |= {f"nexp_{band}": np.full(len(ra), 3), f"psfsize_{band}": np.full(len(ra), 1.3),
                  f"psfdepth_{band}": np.full(len(ra), 24.5)}  # fmt: skip
    fitsio.write(str(sky / "survey-bricks-dr10-south.fits.gz"), list(table.values()), names=list(table))
    return sky


def experiment_of(source, name="e", survey=(), **cuts):
    return from_dict(
        {"name": "t", "variant": "t", "experiment_id": name, "seed": 3,
         "survey": {"source": str(source), "sweeps": "sweeps.txt"} | dict(survey),
         "splits": {"train": 0.5, "val": 0.25, "test": 0.25},
         "targets": {"sweeps_per_chunk": 2} | cuts, "limits": {"max_failed_fraction": 0.3}},
        "test",
    )  # fmt: skip


def select(spark, experiment, root):
    args = argparse.Namespace(
        output_s3=str(root), test_limit=None, partitions=2, overwrite=False, take_over=False
    )
    return targets.run(spark, experiment, args)["counts"]


def rows_of(root, experiment):
    table = read_table(place(str(root), "phase3", experiment))
    return sorted(table.to_pylist(), key=lambda row: row["host_id"])


def test_a_galaxy_of_two_sweeps_is_kept_once_and_every_row_is_counted(spark, release, tmp_path):
    shutil.copy(release / "sweep/10.1/sweep-150p000-160p005.fits", release / "sweep/10.1/sweep-again.fits")
    everything = experiment_of(release, survey={"sweeps": "sweep/10.1"})
    counts = select(spark, everything, tmp_path / "out")
    cuts = dict(counts["cuts"])
    assert cuts.pop("rows") == 5 * PER_SWEEP + 2 == sum(cuts.values())
    rows = rows_of(tmp_path / "out", everything)
    assert cuts["duplicate"] == sum(140 < r["ra"] < 160 for r in rows) + 1, "a sweep again, and the seam"
    assert counts["rows"] == cuts["targets"] == len(rows) == len({r["host_id"] for r in rows})
    at_seam = [r for r in rows if r["host_id"] & 0xFFFF == 900]
    mine = [
        int(bricks.brick_id(*bricks.brick_at(np.array([a]), np.array([-0.2])))[0]) for a in (0.0001, 359.9999)
    ]
    assert [r["host_id"] >> 16 & 0xFFFFFF for r in at_seam] == [min(mine)], "the lower number stays"
    assert counts["splits"] == {
        s: sum(r["region_split"] == s for r in rows) for s in ("train", "val", "test")
    }
    assert not Path(place(str(tmp_path / "out"), "phase3", everything), "candidates").exists()
    again = select(spark, everything, tmp_path / "out")
    assert again == counts and len(committed_chunks(place(str(tmp_path / "out"), "phase3", everything))) == 3


@pytest.mark.parametrize("commits", [1, 3])
def test_a_run_killed_between_chunks_goes_on_where_it_stopped(spark, release, tmp_path, monkeypatch, commits):
    experiment = experiment_of(release)
    whole = select(spark, experiment, tmp_path / "whole")
    commit, made = targets.commit_chunk, []

    def killed(*args):
        if len(made) == commits:
            raise KeyboardInterrupt
        made.append(args[:2])
        commit(*args)

    monkeypatch.setattr(targets, "commit_chunk", killed)
    with pytest.raises(KeyboardInterrupt):
        select(spark, experiment, tmp_path / "out")
    monkeypatch.setattr(targets, "commit_chunk", commit)
    for name in sorted(FIELDS)[: 2 if commits == 1 else 4]:
        (release / f"sweep/10.1/{name}.fits").unlink()  # what is committed is not read again
    assert select(spark, experiment, tmp_path / "out") == whole
    assert rows_of(tmp_path / "out", experiment) == rows_of(tmp_path / "whole", experiment)


def test_sweeps_of_a_web_server_and_one_that_is_broken_cost_only_itself(spark, release, tmp_path):
    path = release / "sweep/10.1/sweep-000p000-010p005.fits"
    path.write_bytes(path.read_bytes()[:9000])
    server = Server(release)
    try:
        experiment = experiment_of(server.url, survey={"sweeps": "sweep/10.1"})
        counts = select(spark, experiment, tmp_path / "out")
    finally:
        server.stop()
    assert (counts["sweeps"], counts["failed_sweeps"], counts["chunks"]) == (4, 1, 2)
    assert counts["cuts"]["rows"] == 3 * PER_SWEEP + 2
    (failure,) = read_table(place(str(tmp_path / "out"), "phase3", experiment) + "/quarantine").to_pylist()
    assert failure["unit"].endswith(path.name) and "truncated" in failure["reason"]


def test_a_number_that_names_two_galaxies_is_refused_with_counts(spark, release, tmp_path):
    path = release / "sweep/10.1/sweep-150p000-160p005.fits"
    rows, other = fitsio.read(str(path)), field("sweep-150p000-160p005", 3)
    other["RA"] += 5 * ARCSEC
    other["DEC"] -= 100 * ARCSEC
    path.unlink()
    fitsio.write(str(path), rows[:3])
    fitsio.write(str(release / "sweep/10.1/sweep-other.fits"), other)
    experiment = experiment_of(release, survey={"sweeps": "sweep/10.1"})
    with pytest.raises(
        DatasetError, match=r"[123] galaxies are there twice at different positions, e.g. host_id"
    ):
        select(spark, experiment, tmp_path / "out")


def test_a_split_without_targets_is_warned_of_in_the_record(spark, release, tmp_path):
    counts = select(spark, experiment_of(release, min_psfdepth_r=99.0), tmp_path / "out")
    assert counts["rows"] == 0 and counts["splits"] == {"train": 0, "val": 0, "test": 0}
    assert [w.split(":")[0] for w in counts["warnings"]] == [
        f"no target is in {name}" for name in ("train", "val", "test")
    ]


def test_redshifts_are_joined_from_companions_and_from_a_table(spark, release, tmp_path):
    folder = release / "pz"
    folder.mkdir()
    for name in FIELDS:
        rows = fitsio.read(str(release / f"sweep/10.1/{name}.fits"))
        made = np.zeros(len(rows), [("RELEASE", "i2"), ("BRICKID", "i4"), ("OBJID", "i4"),
                                    ("Z_PHOT_MEDIAN", "f4"), ("Z_SPEC", "f4")])  # fmt: skip
        for key in ("RELEASE", "BRICKID", "OBJID"):
            made[key] = rows[key]
        made["Z_PHOT_MEDIAN"], made["Z_SPEC"] = 0.4, np.where(np.arange(len(rows)) % 2, -99, 0.25)
        fitsio.write(str(folder / f"{name}-pz.fits"), made[:-1] if name.startswith("sweep-150") else made)
    by_companion = experiment_of(release, "pz", survey={"redshifts": "pz"})
    counts = select(spark, by_companion, tmp_path / "out")
    assert counts["failed_sweeps"] == 1 and set(counts["redshifts"]) == {"spectrum", "photometric"}
    expected = {"spectrum": np.float32(0.25), "photometric": np.float32(0.4)}
    rows = rows_of(tmp_path / "out", by_companion)
    assert all(r["z_host"] == expected[r["z_host_source"]] for r in rows)
    some = [r["host_id"] for r in rows[::3]]
    pq.write_table(pa.table({"host_id": some, "z_host": np.full(len(some), 0.7)}), release / "z.parquet")
    by_table = experiment_of(release, "table", survey={"redshifts": "z.parquet"})
    counts = select(spark, by_table, tmp_path / "out")
    assert counts["redshifts"] == {"table": len(some), "lrg_colours": counts["rows"] - len(some)}
