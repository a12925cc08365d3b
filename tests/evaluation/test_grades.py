"""Grades of several graders become one table, and how far they agree is measured as the literature defines it."""

import csv
import json

import numpy as np
import pytest

from evaluation import agreement
from evaluation.gradebook import GRADE_COLUMNS, GRADES, KEY_COLUMNS, GradesError, read_grades, read_key
from evaluation.grades import main, merged

PAGE, CATALOGUE = "page0", "catalogue0"


def write(file, columns, rows):
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows(rows)
    return str(file)


def grade(grader, item, given, time="2026-01-01T00:00:00Z", **more):
    row = {"page": PAGE, "catalogue": CATALOGUE, "grader": grader, "item": item, "grade": given, "time": time}
    return {"theta_e_arcsec": "", "notes": "", **row, **more}


@pytest.fixture
def key(tmp_path):
    items = [(f"i{n}", "candidate", f"DHS {n}") for n in range(4)]
    items += [
        ("r0", "repeat", "DHS 0"),
        ("r1", "repeat", "DHS 1"),
        ("l0", "lens", "L 0"),
        ("n0", "nonlens", "N 0"),
    ]
    rows = [
        {
            "page": PAGE,
            "catalogue": CATALOGUE,
            "item": i,
            "kind": k,
            "name": n,
            "ra": 1,
            "dec": -2,
            "rank": 1,
            "logit": 3,
        }
        for i, k, n in items
    ]
    return write(tmp_path / "page.key.csv", KEY_COLUMNS, rows)


@pytest.fixture
def two_graders(tmp_path):
    ann = {"i0": "A", "i1": "B", "i2": "reject", "i3": "C", "r0": "A", "r1": "C", "l0": "B", "n0": "reject"}
    bob = {"i0": "A", "i1": "C", "i2": "reject", "l0": "C", "n0": "A"}
    files = [
        write(tmp_path / f"{who}.csv", GRADE_COLUMNS, [grade(who, i, g) for i, g in given.items()])
        for who, given in (("ann", ann), ("bob", bob))
    ]
    return files


def test_graders_are_merged_and_their_agreement_is_said(key, two_graders, tmp_path, capsys):
    assert main(["merge", *two_graders, "--key", key, "--out", str(tmp_path / "merged")]) == 0
    with (tmp_path / "merged.csv").open() as stream:
        rows = {r["name"]: r for r in csv.DictReader(stream)}
    assert next(iter(rows)) == "DHS 0" and len(rows) == 6  # repeats are no objects of their own
    assert (rows["DHS 1"]["score"], rows["DHS 1"]["consensus"], rows["DHS 1"]["range"]) == ("1.5", "C", "1")
    assert (rows["DHS 3"]["grade_ann"], rows["DHS 3"]["grade_bob"], rows["DHS 3"]["n_grades"]) == (
        "C",
        "",
        "1",
    )
    assert (rows["N 0"]["kind"], rows["N 0"]["range"]) == ("nonlens", "3")
    found = json.loads((tmp_path / "merged.json").read_text())
    assert found["graders"]["ann"]["repeats"]["same"] == 1 and found["graders"]["ann"]["repeats"]["n"] == 2
    assert found["graders"]["ann"]["planted_lenses_called_lens"]["called"] == 1
    assert found["graders"]["bob"]["planted_lenses_called_lens"]["called"] == 0
    assert found["graders"]["bob"]["planted_nonlenses_called_lens"]["called"] == 1
    pair = found["pairs"][0]
    assert (pair["graders"], pair["n"], pair["same"], pair["kappa_95"]) == (["ann", "bob"], 5, 2, None)
    assert found["all"]["n"] == 5
    said = capsys.readouterr().out
    assert "ann and bob: same grade for 2 of 5" in said and "Fleiss' kappa" in said


def test_of_two_grades_of_one_grader_the_later_stands(key, tmp_path):
    early = write(tmp_path / "1.csv", GRADE_COLUMNS, [grade("ann", "i0", "A", "2026-01-02")])
    late = write(
        tmp_path / "2.csv", GRADE_COLUMNS, [grade("ann", "i0", "C", "2026-01-03", notes="no, a spiral")]
    )
    for files in ([early, late], [late, early]):
        rows = merged(read_grades(files, read_key([key])))
        assert (rows[0]["grade_ann"], rows[0]["notes"]) == ("C", "ann: no, a spiral")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"page": "other", "catalogue": "other0"},
            "row 2: is of page other of catalogue other0; the key is of page0",
        ),
        ({"item": "gone"}, "item 'gone' is not on its page"),
        ({"grade": "Z"}, "grade 'Z'; expected one of reject, C, B, A"),
        ({"grader": ""}, "row 2: has no grader"),
        ({"theta_e_arcsec": "wide"}, "row 2: radius 'wide' is no number"),
    ],
)
def test_grades_that_do_not_belong_are_refused_by_row(key, tmp_path, change, said, capsys):
    file = write(tmp_path / "g.csv", GRADE_COLUMNS, [grade("ann", "i0", "A") | change])
    assert main(["merge", file, "--key", key, "--out", str(tmp_path / "merged")]) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "merged.csv").exists()


def test_files_that_are_no_grades_are_refused(key, tmp_path):
    def refused(content, said):
        file = tmp_path / "bad.csv"
        file.write_bytes(content)
        with pytest.raises(GradesError, match=said):
            read_grades([str(file)], read_key([key]))

    header = ",".join(GRADE_COLUMNS).encode()
    refused(b"name,grade\nx,A\n", "lacks the columns")
    refused(b"\xff\xfe\x00", "is not UTF-8")
    refused(header + b"\npage0,catalogue0,ann\n", "row 2: has more or fewer cells")
    refused(header + b'\npage0,catalogue0,ann,i0,A,,"cut off', "export the grades again")
    other = [{c: "x" for c in KEY_COLUMNS}]
    with pytest.raises(GradesError, match="is of catalogue x, the keys before of catalogue0"):
        read_key([key, write(tmp_path / "other.key.csv", KEY_COLUMNS, other)])


def test_no_cell_is_one_that_a_spreadsheet_runs(key, tmp_path):
    file = write(tmp_path / "g.csv", GRADE_COLUMNS, [grade("=ann", "i0", "A", notes="'=1+1")])
    assert main(["merge", file, "--key", key, "--out", str(tmp_path / "m")]) == 0
    with (tmp_path / "m.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert rows[0]["notes"] == "'=ann: =1+1" and rows[0]["grade_=ann"] == "A"


def test_fleiss_kappa_is_that_of_the_worked_example():
    counts = [[0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
              [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7]]  # fmt: skip
    assert agreement.fleiss(np.array(counts)) == pytest.approx(0.210, abs=5e-4)
    assert agreement.fleiss(np.array([[2, 0], [0, 2]])) == 1
    assert agreement.fleiss(np.array([[2, 0], [2, 0]])) is None
    with pytest.raises(ValueError, match="same number"):
        agreement.fleiss(np.array([[2, 0], [0, 3]]))


def test_cohens_kappa_is_that_of_its_definition():
    first, second = [3, 3, 2, 1, 0, 0, 0, 1], [3, 2, 2, 1, 0, 0, 1, 3]
    observed = 5 / 8
    expected = sum(first.count(g) * second.count(g) for g in range(4)) / 64
    assert agreement.cohen(first, second, 4) == pytest.approx((observed - expected) / (1 - expected))
    apart = np.mean(np.abs(np.subtract(first, second)))
    by_chance = np.mean([[abs(a - b) for a in first] for b in second])
    assert agreement.cohen(first, second, 4, linear=True) == pytest.approx(1 - apart / by_chance)
    assert agreement.cohen([3, 3], [3, 3], 4) is None


def test_a_kappas_interval_covers_it_and_shrinks_with_items():
    rng = np.random.default_rng(5)

    def width(n):
        truth = rng.integers(0, len(GRADES), n)
        noisy = np.where(rng.random(n) < 0.6, truth, rng.integers(0, len(GRADES), n))
        low, high = agreement.interval(
            lambda at: agreement.cohen(truth[at].tolist(), noisy[at].tolist(), 4), n
        )
        assert low < 0.6 < high
        return high - low

    assert width(30) > 1.5 * width(200)
    assert agreement.interval(lambda at: 0.0, 5) is None
