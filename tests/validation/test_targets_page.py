"""The report of stage 3 says what the table says, without holding the table."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from survey_testing import galaxies

from darkhaloscope.dataset import DatasetError, commit_chunk, write_part
from darkhaloscope.experiment import Experiment
from darkhaloscope.records import FAILURES, TARGETS
from darkhaloscope.report.page import as_json, render_page
from darkhaloscope.schema import to_batch
from darkhaloscope.sections import Splits, Targets
from darkhaloscope.survey.catalogue import Catalogue
from darkhaloscope.survey.targets import select_targets
from darkhaloscope.validation import target_charts, target_tally
from darkhaloscope.validation.histogram import Histogram
from darkhaloscope.validation.target_charts import middle_of
from darkhaloscope.validation.targets import targets_page

SPLITS = Splits(train=0.5, val=0.25, test=0.25, nside=64)


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """(root, columns) of a committed table of targets on both sides of RA 0, in two chunks."""
    root = str(tmp_path_factory.mktemp("phase3"))
    rng = np.random.default_rng(1)
    n = 3000
    ra, dec = rng.uniform(-12, 8, n) % 360, rng.uniform(-5, 5, n)
    mag_z, rz = rng.uniform(18, 20.3, n), rng.uniform(0.5, 1.8, n)
    rows = galaxies(n, mag_z=mag_z, rz=rz, ra=ra, dec=dec, TYPE=rng.choice([b"SER", b"PSF"], n))
    catalogue = Catalogue({name.lower(): rows[name] for name in rows.dtype.names})
    catalogue.columns.update({f"psfdepth_{b}": np.full(n, 24.5) for b in "grz"})
    found = select_targets(catalogue, Targets(), SPLITS, 42)
    batch = to_batch(TARGETS, found.columns)
    for chunk in (0, 1):
        half = batch.slice(chunk * (len(batch) // 2), len(batch) // 2 + chunk * (len(batch) % 2))
        commit_chunk(root, chunk, [write_part(root, chunk, 0, [half], TARGETS.arrow())])
    experiment = dataclasses.replace(Experiment("t", "t", "e"), splits=SPLITS)
    counts = {"cuts": found.counts | {"duplicate": 0}, "sweeps": 3}
    record = {
        "stage": "3",
        "state": "done",
        "hash": "abc",
        "counts": counts,
        "experiment": experiment.as_dict(),
    }
    Path(root, "_stage_config.json").write_text(json.dumps(record))
    return root, found


def tables(page):
    return {k: v for s in as_json(page)["sections"].values() for k, v in s["tables"].items()}


def test_the_numbers_are_those_of_the_table_however_it_is_batched(output, monkeypatch):
    root, found = output
    monkeypatch.setattr(target_tally, "BATCH", 97)
    page = targets_page(root)
    made = tables(page)
    cuts = made["cut by cut, in the order of application"]
    assert cuts[0]["left"] == 3000 and cuts[-1]["left"] == found.counts["targets"]
    assert sum(row["left out"] for row in cuts[1:]) == 3000 - found.counts["targets"]
    split = found.columns["region_split"]
    assert {r["split"]: r["targets"] for r in made["targets by split"]} == {
        name: np.count_nonzero(split == name) for name in ("train", "val", "test")
    }
    values = {row["quantity"]: row for row in made["quantiles, to 1/4000 of their range"]}
    expected = found.columns["mag_dered_z"]
    assert values["z, dereddened"]["median"] == pytest.approx(np.median(expected), abs=0.01)
    assert values["z, dereddened"]["least"] == pytest.approx(expected.min(), abs=1e-5)
    assert values["redshift"]["25.0 %"] == pytest.approx(
        np.quantile(found.columns["z_host"], 0.25), abs=0.005
    )
    assert made["where values are from"][0] == {
        "of": "redshift",
        "from": "lrg_colours",
        "targets": len(split),
    }
    assert not any(s.warnings for s in page.sections)


@pytest.mark.parametrize("few", [0, 20_000])
def test_numbers_come_before_four_pictures_and_the_page_is_whole(output, monkeypatch, few):
    monkeypatch.setattr(target_charts, "FEW", few)  # a survey's targets, and a few bricks'
    page = targets_page(output[0])
    assert [bool(s.charts) for s in page.sections] == [False] * 4 + [True]
    assert len(page.sections[-1].charts) == 4 and all(f"{len(output[1].columns['ra']):,}" in c.caption
                                                      for c in page.sections[-1].charts)  # fmt: skip
    assert "<html" in render_page(page)


def test_an_empty_split_and_quarantined_sweeps_are_warned_of(output, tmp_path):
    _, found = output
    batch = to_batch(TARGETS, found.columns)
    train = batch.filter(np.asarray(found.columns["region_split"] == "train").tolist())
    root = str(tmp_path / "out")
    commit_chunk(root, 0, [write_part(root, 0, 0, [train], TARGETS.arrow())])
    failure = {
        "stage": ["3"],
        "unit": ["sweep-1.fits"],
        "rows": [1],
        "error": ["CatalogueError"],
        "reason": ["cut"],
    }
    bad = f"{root}/quarantine"
    commit_chunk(bad, 0, [write_part(bad, 0, 0, [to_batch(FAILURES, failure)], FAILURES.arrow())])
    Path(root, "_stage_config.json").write_bytes(Path(output[0], "_stage_config.json").read_bytes())
    warnings = [w for s in targets_page(root).sections for w in s.warnings]
    assert [w.split(":")[0] for w in warnings if w.startswith("no target")] == [
        "no target is in val",
        "no target is in test",
    ]
    assert any("1 sweep files are quarantined" in w for w in warnings)
    assert f"the cuts leave {found.counts['targets']:,} rows, the table has {len(train):,}" in warnings


def test_no_targets_at_all_is_a_page_and_no_output_an_error(output, tmp_path):
    root = str(tmp_path / "out")
    commit_chunk(root, 0, [])
    Path(root, "_stage_config.json").write_bytes(Path(output[0], "_stage_config.json").read_bytes())
    assert "no target is in train" in render_page(targets_page(root))
    with pytest.raises(DatasetError, match=r"nothing is committed there; run stage 3"):
        targets_page(str(tmp_path / "nothing"))


def test_quantiles_of_a_histogram_are_exact_to_a_bin():
    values = np.random.default_rng(2).normal(20, 1, 5000).astype(np.float32)
    made = Histogram(12, 28)
    for piece in np.array_split(np.append(values, [np.nan, np.inf]), 7):
        made.add(piece)
    assert made.unknown == 2 and made.counts.sum() == 5000
    for share in (0.05, 0.5, 0.95):
        assert made.quantile(share) == pytest.approx(np.quantile(values, share), abs=0.005)
    assert Histogram(0, 1).quantile(0.5) is None


@pytest.mark.parametrize(
    ("ra", "centre"), [([350, 0, 10], 0.0), ([100, 110], 105.0), ([200, 190, 180], 190.0), ([5], 5.0)]
)
def test_the_map_is_centred_on_the_footprint_across_the_seam(ra, centre):
    assert (middle_of(np.array(ra, float)) - centre + 180) % 360 - 180 == pytest.approx(0, abs=1e-9)
