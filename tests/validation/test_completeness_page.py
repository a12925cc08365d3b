import numpy as np
import pyarrow as pa
import pytest
from matplotlib.figure import Figure

from darkhaloscope.dataset import DatasetError, commit_chunk, write_part
from darkhaloscope.injection.completeness import (
    AXES,
    N_CELLS,
    NEEDED,
    PAIRS,
    cells_table,
    completeness_table,
    count,
)
from darkhaloscope.records import STAMPS
from darkhaloscope.report.page import as_json, render_page
from darkhaloscope.validation import completeness
from darkhaloscope.validation.completeness import completeness_page


def written(root, n: int) -> str:
    rng = np.random.default_rng(0)
    middle = {axis: rng.uniform(edges[1], edges[-3], n) for axis, edges in AXES.items()}
    columns = {
        "host_id": np.arange(n) // 3,
        "is_control": np.zeros(n),
        "metrics_ok": rng.integers(0, 2, n),
        "arc_snr": rng.uniform(0, 30, n),
    }
    types = {c.name: c.type for c in STAMPS.columns}
    rows = pa.table({k: pa.array((columns | middle)[k]).cast(types[k]) for k in NEEDED})
    counts = count(rows, 10.0)
    for at, table in ((root, completeness_table(counts, 10.0)), (root / "cells", cells_table(counts, 10.0))):
        commit_chunk(str(at), 0, [write_part(str(at), 0, 0, [table], table.schema)])
    return str(root)


def test_the_page_has_every_bin_of_every_axis_and_says_how_many_are_empty(tmp_path):
    page = completeness_page(written(tmp_path, 300))
    assert [s.title for s in page.sections] == [*AXES, *(f"{a} and {b}" for a, b in PAIRS)]
    for section, axis in zip(page.sections, AXES, strict=False):
        (table,) = section.tables
        assert len(table.rows) == 2 * (len(AXES[axis]) - 1)
        assert "300 injections" in table.title and "empty bins" in table.title
    shown = sum(len(t.rows) for s in page.sections[len(AXES) :] for t in s.tables)
    empty = [t.title for s in page.sections[len(AXES) :] for t in s.tables]
    assert 0 < shown < 2 * N_CELLS and all("cells empty" in caption for caption in empty)
    html = render_page(page)
    assert html.count("data:image/png") == len(AXES) + 2 * len(PAIRS)
    assert as_json(page)["sections"]["theta_e_arcsec"]["tables"]


def test_no_injections_are_a_warning_and_no_error(tmp_path, monkeypatch):
    def painted(painter, height=1.0):  # painted, but not made into a picture, which takes seconds
        painter(Figure().subplots())
        return ""

    monkeypatch.setattr(completeness, "draw", painted)
    page = completeness_page(written(tmp_path, 0))
    assert page.sections[0].warnings == ["no injection has a theta_e_arcsec"]
    assert "–" in render_page(page)


def test_a_stage_that_has_not_run_says_so(tmp_path):
    with pytest.raises(DatasetError, match="run the stage"):
        completeness_page(str(tmp_path))
