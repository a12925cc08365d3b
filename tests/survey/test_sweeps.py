"""Where sweep files come from, in which chunks they are done, and their photometric redshifts."""

import fitsio
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from survey_testing import Server

from darkhaloscope.dataset import DatasetError
from darkhaloscope.sections import Survey
from darkhaloscope.storage import filesystem
from darkhaloscope.survey.catalogue import Catalogue, host_id
from darkhaloscope.survey.errors import CatalogueError
from darkhaloscope.survey.photoz import join_table, with_companion
from darkhaloscope.survey.sweeps import Sweep, in_chunks, list_sweeps

NAMES = ["sweep-000m005-010p000.fits", "sweep-000p000-010p005.fits", "sweep-350p000-360p005.fits"]


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "release" / "sweep" / "10.1"
    place.mkdir(parents=True)
    for i, name in enumerate(reversed(NAMES)):
        (place / name).write_bytes(b"x" * (i + 1))
    (place / "sweep-000m005-010p000-pz.fits").write_bytes(b"x")
    (place / "README").write_bytes(b"x")
    return tmp_path / "release"


def test_a_local_folder_gives_its_sweeps_sorted_with_their_sizes(folder):
    found = list_sweeps(Survey(source=str(folder), redshifts="sweep/10.1-photo-z"))
    assert [s.url for s in found] == [str(folder / "sweep" / "10.1" / n) for n in NAMES]
    assert [s.bytes for s in found] == [3, 2, 1]
    assert found[1].companion == str(folder / "sweep/10.1-photo-z/sweep-000p000-010p005-pz.fits")


def test_an_index_page_gives_its_sweeps(folder):
    server = Server(folder)
    try:
        found = list_sweeps(Survey(source=server.url))
    finally:
        server.stop()
    assert [s.url for s in found] == [f"{server.url}/sweep/10.1/{n}" for n in NAMES]


def test_a_bucket_gives_its_sweeps(folder, s3_bucket):
    fs, path = filesystem(f"{s3_bucket}/release/sweep/10.1")
    for name in NAMES:
        fs.put_file(str(folder / "sweep" / "10.1" / name), f"{path}/{name}")
    found = list_sweeps(Survey(source=f"{s3_bucket}/release"))
    assert [(s.url, s.bytes) for s in found] == [
        (f"{s3_bucket}/release/sweep/10.1/{n}", 3 - i) for i, n in enumerate(NAMES)
    ]


def test_a_text_file_lists_sweeps_of_anywhere(folder, tmp_path):
    other = "https://example.org/dr10/sweep-010p000-020p005.fits"
    (folder / "list.txt").write_text(f"# mine\n\nsweep/10.1/{NAMES[2]}\n{other}\n  /data/{NAMES[0]}  \n")
    found = list_sweeps(Survey(source=str(folder), sweeps="list.txt"))
    assert {s.url for s in found} == {str(folder / "sweep/10.1" / NAMES[2]), other, f"/data/{NAMES[0]}"}
    server = Server(folder)
    try:
        remote = list_sweeps(Survey(source="/nowhere", sweeps=f"{server.url}/list.txt"))
    finally:
        server.stop()
    assert f"{server.url}/sweep/10.1/{NAMES[2]}" in {s.url for s in remote}


def test_a_sweep_that_is_listed_twice_and_an_empty_list_are_refused(folder):
    (folder / "list.txt").write_text(f"{NAMES[0]}\n{NAMES[1]}\n{NAMES[0]}\n")
    with pytest.raises(
        DatasetError, match=r"list.txt: lists 1 of 3 sweeps more than once.*000m005.*each once"
    ):
        list_sweeps(Survey(source=str(folder), sweeps="list.txt"))
    (folder / "list.txt").write_text("# nothing\n")
    with pytest.raises(DatasetError, match="no sweep-"):
        list_sweeps(Survey(source=str(folder), sweeps="list.txt"))


def test_chunks_depend_on_names_alone_and_begin_with_their_largest_sweep():
    sizes = [5, 90, 20, 7, 60, 30, 1]
    sweeps = [Sweep(f"sweep-{i}", "", n) for i, n in enumerate(sizes)]
    chunks = in_chunks(sweeps, 3)
    assert [[s.bytes for s in c] for c in chunks] == [[90, 20, 5], [60, 30, 7], [1]]
    unknown = in_chunks([Sweep(s.url) for s in sweeps], 3)
    assert [{s.url for s in c} for c in chunks] == [{s.url for s in c} for c in unknown]


PZ = [("RELEASE", "i2"), ("BRICKID", "i4"), ("OBJID", "i4"), ("Z_PHOT_MEDIAN", "f4"), ("Z_SPEC", "f4")]


def companion(path, n=7, without=(), **change):
    rows = np.zeros(n, PZ)
    rows["RELEASE"], rows["BRICKID"], rows["OBJID"] = 10000, 330000, np.arange(n)
    rows["Z_PHOT_MEDIAN"], rows["Z_SPEC"] = 0.5 + 0.01 * np.arange(n), -99
    for name, values in change.items():
        rows[name][: len(values)] = values
    names = [k for k, _ in PZ if k not in without]
    fitsio.write(str(path), rows[names].copy(), clobber=True)
    return str(path)


def pieces(n=7, size=3):
    numbers = np.arange(n)
    whole = {"release": numbers * 0 + 10000, "brickid": numbers * 0 + 330000, "objid": numbers, "ra": numbers}
    cut = [{k: v[i : i + size] for k, v in whole.items()} for i in range(0, n, size)]
    return [Catalogue(c, (), "sweep-1.fits") for c in cut]


def test_a_companions_redshifts_come_to_their_rows(tmp_path):
    url = companion(tmp_path / "sweep-1-pz.fits", Z_SPEC=[-99, 0.31])
    joined = list(with_companion(pieces(), url))
    z_phot = np.concatenate([p.columns["z_phot"] for p in joined])
    assert z_phot == pytest.approx(0.5 + 0.01 * np.arange(7))
    assert joined[0].columns["z_spec"][1] == pytest.approx(0.31)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ({"OBJID": [0, 1, 2, 3, 9]}, r"row 4 is RELEASE, BRICKID, OBJID \[10000, 330000, 9\], in the sweep it is "
         r"\[10000, 330000, 4\], and 1 of rows 3 to 5 differ; take the companion of the same release"),
        ({"n": 5}, "row 5 is RELEASE, BRICKID, OBJID .*, in the sweep it is .10000, 330000, 5"),
        ({"n": 9}, "has 9 rows, its sweep 7"),
        ({"without": ("OBJID", "Z_PHOT_MEDIAN")}, "no columns OBJID, Z_PHOT_MEDIAN; expected"),
    ],
)  # fmt: skip
def test_a_companion_of_another_sweep_is_refused_by_row_and_column(tmp_path, made, words):
    url = companion(tmp_path / "sweep-1-pz.fits", **made)
    with pytest.raises(CatalogueError, match=rf"sweep-1-pz.fits: {words}"):
        list(with_companion(pieces(), url))


def selected(n=6):
    ids = host_id(np.full(n, 10000), np.full(n, 330000), np.arange(n)[::-1])
    return {"host_id": ids, "z_host": np.full(n, 0.4), "z_host_source": np.full(n, "lrg_colours", object)}


def test_a_table_of_redshifts_is_joined_by_host_id(tmp_path):
    found = selected()
    ids = np.concatenate([found["host_id"][[4, 1, 2]], [7, 1 << 60]])
    url = str(tmp_path / "z.parquet")
    pq.write_table(pa.table({"host_id": ids, "z_host": [0.61, 0.62, -99.0, 0.63, 0.64], "other": ids}), url)
    joined = join_table(found, url)
    assert joined["z_host"].tolist() == [0.4, 0.62, 0.4, 0.4, 0.61, 0.4]
    assert (joined["z_host_source"] == "table").tolist() == [False, True, False, False, True, False]
    assert found["z_host"][1] == 0.4, "what was given is not changed"
    pq.write_table(pa.table({"host_id": found["host_id"][[1, 1]], "z_host": [0.1, 0.2]}), url)
    with pytest.raises(CatalogueError, match=r"z.parquet: has galaxies twice, e.g. host_id"):
        join_table(found, url)
    pq.write_table(pa.table({"host_id": ids.astype(np.int32), "z": [0.1] * 5}), url)
    with pytest.raises(
        CatalogueError, match=r"has columns host_id \(int32\), z \(double\); expected host_id"
    ):
        join_table(found, url)
