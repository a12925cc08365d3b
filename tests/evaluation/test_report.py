"""The page of a run: self-contained, escaped, true to the files, and open about what is missing."""

import base64
import html
import json
import re
import shutil

import pytest
from fabricate import EXPERIMENT, HOSTILE, SVG, write_record, write_sections

from darkhaloscope.report.page import duration, number, percent
from evaluation.report import as_json, main, render
from evaluation.section import CHECKS
from evaluation.workspace import Missing, WorkspaceError, hash_faults, read_workspace

PARTS = f"{EXPERIMENT.variant}/{EXPERIMENT.experiment_id}"


def test_the_page_needs_nothing_but_itself(page):
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    kinds = {"data:image/png;base64,": b"\x89PNG", "data:image/svg+xml;base64,": b"<svg"}
    pictures = {s: magic for s in sources for kind, magic in kinds.items() if s.startswith(kind)}
    assert len(pictures) > 60
    assert all(base64.b64decode(s.split(",")[1]).startswith(magic) for s, magic in pictures.items())
    assert all(s.startswith("#") for s in sources if s not in pictures)
    assert not re.search(r"<script|<link|<iframe|@import|url\(", page)
    assert "default-src 'none'; img-src data:" in page
    anchors = {s[1:] for s in sources if s.startswith("#")}
    assert anchors <= set(re.findall(r'id="(\w+)"', page))


def test_text_from_the_data_is_shown_and_never_run(page):
    escaped = "&lt;script&gt;alert(&#39;brick&#39;)&lt;/script&gt; &amp; &#34;quoted&#34; ${x} {{ 7 * 6 }}"
    assert page.count(escaped) > 30  # captions, quarantine, failure reasons
    assert HOSTILE not in page
    assert "BrickMissing" in page


def test_the_numbers_on_the_page_are_those_of_the_files(run, page):
    metrics = json.loads((run / "evaluation" / "metrics.json").read_text())
    n, figures = metrics["n"], metrics["figures"]
    assert (
        f"{n['positives']} injections on {n['positive_hosts']} galaxies and {n['negatives']} control galaxies"
        in page
    )
    for name, figure in figures.items():
        assert f"<td>{name}</td>" in page
        assert f"{number(figure['low'])} to {number(figure['high'])}" in page
        assert f"{number(figure['cell_low'])} to {number(figure['cell_high'])}" in page
    assert page.count('<span class="tag">unresolved</span>') == len(metrics["unresolved"]) == 7
    for found in (metrics["scores_hash"], EXPERIMENT.digest(), *read_workspace(str(run)).hashes.values()):
        assert found in page
    assert "1.6 min in all: sky 31.5 s, train 62.0 s." in page
    assert "5,000" in page  # sweep rows read, of stage 3's record
    assert "<b>Missing:" not in page and "Does not belong together" not in page


def test_every_check_is_a_section_with_its_verdict_tables_and_pictures(run, page):
    for title, anchor, verdict in (
        ("Shortcut gates", "check_gates", "pass"),
        ("Realism probe", "check_probe_real", "fail"),
    ):
        assert f'<section id="{anchor}">' in page and f'<a href="#{anchor}">{title}</a>' in page
        assert re.search(rf"<span>{title}</span><b>{verdict}</b>", page)
    assert '<span class="verdict bad">fail</span>' in page
    assert f"data:image/svg+xml;base64,{base64.b64encode(SVG.encode()).decode()}" in page
    assert "evaluation/lost.png" in page  # a picture that is not there is said not to be
    assert "../outside.svg: expected the name of an SVG or PNG file" in page
    assert "column 11 with a long name" in page and ">0.1429<" in page


def test_of_a_figure_that_too_few_rows_carry_the_range_is_shown_and_not_the_value(page, copy):
    assert '<div class="card faint"><span>tpr@fpr1e-2</span><b>' in page
    file = copy / "evaluation" / "metrics.json"
    metrics = json.loads(file.read_text())
    figure, purity = metrics["figures"]["tpr@fpr1e-2"], metrics["purity"][0]
    assert f"<b>{percent(figure['low'])} to {percent(figure['high'])}</b>" in page
    assert f'<td>tpr@fpr1e-2</td><td class="n soft"><small class="soft">{percent(purity["low"])}' in page
    figure["resolved"] = True
    for row in metrics["purity"]:
        row["resolved"] = True
    file.write_text(json.dumps(metrics))
    page = render(read_workspace(str(copy)))
    assert f"<span>tpr@fpr1e-2</span><b>{percent(figure['value'])}</b>" in page
    assert f'<td>tpr@fpr1e-2</td><td class="n">{percent(purity["value"])}<br>' in page


def test_a_check_that_was_not_made_is_said_not_to_have_been(page):
    for name, (asks, command) in CHECKS.items():
        shown = f"<span>{html.escape(asks)}</span><b>not run</b><span><code>{command}</code>"
        assert (shown in page) == (name != "gates")


def test_scores_of_the_rows_a_network_was_chosen_with_are_not_called_a_test(page, copy):
    assert "No test." not in page
    file = copy / "evaluation" / "metrics.json"
    metrics = json.loads(file.read_text())
    metrics["scored_with"]["split"] = "val"
    file.write_text(json.dumps(metrics))
    page = render(read_workspace(str(copy)))
    assert "<b>No test.</b>" in page and "On the split val:" in page


def test_purity_and_calibration_are_those_of_the_files(run, page):
    metrics = json.loads((run / "evaluation" / "metrics.json").read_text())
    for row in metrics["purity"]:
        assert f"{percent(row['low'])} to {percent(row['high'])}" in page and not row["resolved"]
    assert "<b>Not calibrated.</b>" in page
    for name, found in metrics["calibration"]["reliability"].items():
        assert f'<td>{name}</td><td class="n">{number(found["ece"])}</td>' in page


def test_programs_find_all_that_the_page_shows(run, page, copy):
    def strict(text):
        return json.loads(text, parse_constant=lambda name: pytest.fail(name))

    content = strict((run / "report" / "report.json").read_text())
    metrics = json.loads((run / "evaluation" / "metrics.json").read_text())
    assert content["metrics"] == metrics
    assert content["sections"]["gates"]["figures"] == {"core": {"auc": 0.51}}
    assert content["hashes"] == read_workspace(str(run)).hashes
    assert content["stages"]["phase4c"]["counts"]["failed"] == 3 and len(content["failures"]) == 1
    assert content["does_not_belong_together"] == []
    shutil.rmtree(copy / "training")
    assert "training/train.py writes it" in as_json(read_workspace(str(copy)))["training"]["missing"]


def test_what_is_not_there_is_named_with_the_reason(copy):
    for part in ("evaluation", "training", "scores", "phase4c", "phase4d", "pack", "phase4b"):
        shutil.rmtree(copy / part)
    page = render(read_workspace(str(copy)))
    for name in ("stage phase4b", "stage phase4c", "stage pack", "training", "scores", "figures", "pictures"):
        assert f"<b>Missing: {name}.</b>" in page
    assert "phase4d has not run" in page
    assert "python -m evaluation.evaluate writes it" in page
    assert "stage phase3." not in page


def test_an_unfinished_stage_and_an_unended_epoch_are_said_to_be(copy):
    record = copy / "phase4c" / PARTS / "_stage_config.json"
    content = json.loads(record.read_text())
    del content["counts"], content["seconds"]
    record.write_text(json.dumps(content | {"state": "running"}))
    for part in ("evaluation", "phase4d"):
        shutil.rmtree(copy / part)
    log = copy / "training" / EXPERIMENT.name / "log.jsonl"
    log.write_text('{"event": "start", "step": 0}\n{"event": "epo')
    page = render(read_workspace(str(copy)))
    assert "<b>running</b>, not done" in page
    assert "no epoch has ended yet" in page


def test_figures_of_another_run_are_not_shown_as_this_ones(copy):
    assert hash_faults(read_workspace(str(copy))) == []
    file = copy / "evaluation" / "metrics.json"
    file.write_text(file.read_text().replace(json.loads(file.read_text())["scores_hash"], "f" * 16))
    write_record(copy / "phase4c" / PARTS, "4c", {"rows": 1}, {"manifest": "e" * 16})
    write_record(copy / "phase3" / PARTS, "3", {"rows": 1}, {"sweeps": "9" * 16})  # from outside: no fault
    write_sections(copy / "evaluation", {"scores": "a" * 16, "checkpoint": "b" * 64, "catalogue": "8" * 16})
    shutil.rmtree(copy / "pack" / PARTS / "split=train")
    faults = "\n".join(hash_faults(read_workspace(str(copy))))
    assert "metrics.json is of the scores ffffffffffffffff; those here are" in faults
    assert "phase4c was made from manifest eeeeeeeeeeeeeeee, which no stage here has" in faults
    assert "section gates is of scores aaaaaaaaaaaaaaaa; those here are" in faults
    assert f"section gates is of checkpoint {'b' * 64}; those here are {'c' * 16}" in faults
    assert "8" * 16 not in faults and "9" * 16 not in faults
    assert "training read the train shards" in faults and "those here are absent" in faults


def test_figures_of_an_older_format_are_not_misread(copy):
    file = copy / "evaluation" / "metrics.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 0}))
    metrics = read_workspace(str(copy)).metrics
    assert isinstance(metrics, Missing) and "format 0, this code reads 3" in metrics.reason


def test_a_folder_without_a_run_is_refused(tmp_path, capsys):
    assert main([str(tmp_path)]) == 1
    assert "no stage left a _stage_config.json here" in capsys.readouterr().err
    assert not (tmp_path / "report").exists()


def test_one_of_several_experiments_must_be_named(copy):
    other = copy / "phase3" / "v" / "other" / "_stage_config.json"
    other.parent.mkdir(parents=True)
    content = json.loads((copy / "phase3" / PARTS / "_stage_config.json").read_text())
    content["experiment"]["experiment_id"] = "other"
    other.write_text(json.dumps(content))
    with pytest.raises(WorkspaceError, match=r"holds 2 experiments.*\['other', 'train_fabricated'\]"):
        read_workspace(str(copy))
    assert read_workspace(str(copy), "train_fabricated").experiment == EXPERIMENT
    with pytest.raises(WorkspaceError, match="no experiment 'third'"):
        read_workspace(str(copy), "third")


def test_values_are_written_for_people():
    assert [number(v) for v in (1234567, 0.123456, 12345.6, None, float("nan"), True, "x")] == [
        "1,234,567", "0.1235", "12,346", "–", "–", "True", "x",
    ]  # fmt: skip
    assert [percent(v) for v in (0.0, 0.5, 0.00012, None)] == ["0.0 %", "50.0 %", "0.012 %", "–"]
    assert [duration(v) for v in (3.14, 600, None)] == ["3.1 s", "10.0 min", "–"]
