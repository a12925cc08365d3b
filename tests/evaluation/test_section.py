"""A section is read as it was written, and is told from what is none."""

import math

import pytest

from evaluation.section import Picture, Section, Table, read_all, write


def test_a_section_comes_back_and_other_files_are_left_alone(tmp_path):
    section = Section(
        "Gates", "All hold.", {"scores": "ab"}, "pass",
        [Table(["gate", "AUC"], [["core", 0.51], ["metadata", None]], "by gate")],
        [Picture("core", "core.svg")], {"core": {"auc": 0.51}},
    )  # fmt: skip
    (tmp_path / "metrics.json").write_text('{"format": 1}')
    write(str(tmp_path), "gates", section)
    assert list(read_all(str(tmp_path))) == ["gates"]
    found = read_all(str(tmp_path))["gates"]
    assert (found["title"], found["verdict"], found["made_from"]) == ("Gates", "pass", {"scores": "ab"})
    assert found["tables"][0]["rows"] == [["core", 0.51], ["metadata", None]]
    assert found["pictures"] == [{"title": "core", "file": "core.svg", "caption": ""}]


def test_a_figure_that_is_not_a_number_is_refused(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write(str(tmp_path), "x", Section("x", "", {}, figures={"auc": math.nan}))
    assert read_all(str(tmp_path)) == {}


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "gates.json").write_text("{")
    with pytest.raises(ValueError, match=r"gates\.json: not JSON"):
        read_all(str(tmp_path))
