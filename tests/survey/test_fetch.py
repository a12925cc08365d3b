import numpy as np
import pytest
from survey_testing import BRICK

from darkhaloscope.records import ASSETS
from darkhaloscope.schema import to_batch
from darkhaloscope.survey.coadds import BrickReader, file_path
from darkhaloscope.survey.fetch import fetch_brick


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr("darkhaloscope.survey.files.time.sleep", lambda seconds: None)


def _files(cache):
    return sorted(p for p in cache.rglob("*") if p.is_file())


def test_a_fetched_brick_is_the_sources_and_a_second_run_asks_for_nothing(web, sky, tmp_path):
    cache = tmp_path / "cache"
    row = fetch_brick(web.url, str(cache), BRICK)
    files = _files(cache)
    size = sum(p.stat().st_size for p in files)
    assert row == {
        "brickname": BRICK,
        "status": "cached",
        "reason": "",
        "bands": "grz",
        "files": 10,
        "bytes": size,
    }
    assert (
        all(p.read_bytes() == (sky / p.relative_to(cache)).read_bytes() for p in files) and len(files) == 10
    )
    to_batch(ASSETS, {k: [v] for k, v in row.items()})
    before = len(web.requests)
    assert fetch_brick(web.url, str(cache), BRICK) == row and len(web.requests) == before
    with BrickReader(str(cache), BRICK) as brick:
        assert brick.cut(0, 0, 64).image.shape == (3, 64, 64)


def test_a_broken_file_of_the_cache_is_fetched_again(web, sky, tmp_path):
    cache = tmp_path / "cache"
    fetch_brick(web.url, str(cache), BRICK)
    broken = cache / file_path(BRICK, "image", "r")
    broken.write_bytes(broken.read_bytes()[:9000])
    before = len(web.requests)
    assert fetch_brick(web.url, str(cache), BRICK)["status"] == "cached" and len(web.requests) == before + 1
    assert broken.read_bytes() == (sky / file_path(BRICK, "image", "r")).read_bytes()


@pytest.mark.parametrize(
    "answer,message",
    [("cut", ""), ("short", "file is truncated"), ("html", "not a FITS file"), (503, "503"), (403, "403")],
)
def test_a_file_that_does_not_arrive_whole_is_never_placed(web, tmp_path, answer, message):
    cache = tmp_path / "cache"
    web.faults["image-r.fits.fz"] = [answer] * 9
    row = fetch_brick(web.url, str(cache), BRICK)
    assert row["status"] == "failed" and row["bands"] == "gz" and row["files"] == 9
    assert row["reason"].startswith(f"{BRICK}: {web.url}") and message in row["reason"]
    assert not (cache / file_path(BRICK, "image", "r")).exists()
    assert not [p for p in _files(cache) if not p.name.endswith(".fits.fz") or p.name.startswith(".")]
    assert fetch_brick(web.url, str(cache), BRICK)["status"] in ("failed", "cached")
    web.faults.clear()
    assert fetch_brick(web.url, str(cache), BRICK)["bands"] == "grz", "resumed"


def test_a_brick_or_band_the_source_does_not_have_is_recorded(web, sky, tmp_path):
    row = fetch_brick(web.url, str(tmp_path / "cache"), "0594m305")
    assert row["status"] == "missing" and (row["files"], row["bytes"], row["bands"]) == (0, 0, "")
    assert (
        row["reason"].startswith("0594m305: not in the source: image-g, invvar-g")
        and web.url in row["reason"]
    )
    for kind, band in (("image", "r"), ("maskbits", "")):
        (sky / file_path(BRICK, kind, band)).unlink()
    row = fetch_brick(str(sky), str(tmp_path / "cache"), BRICK)
    assert (row["status"], row["bands"], row["files"]) == ("cached", "gz", 8)
    assert row["reason"] == f"{BRICK}: not in the source: image-r, maskbits"


def test_a_cache_that_cannot_be_written_is_not_the_bricks_fault(sky, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(OSError, match="cache"):
        fetch_brick(str(sky), str(tmp_path / "cache"), BRICK)
    with pytest.raises(ValueError, match="not a web server"):
        fetch_brick(str(sky), "https://example.org/cache", BRICK)


def test_bricks_travel_through_s3_both_ways(sky, tmp_path, s3_bucket):
    cache = f"{s3_bucket}/dr10"
    row = fetch_brick(str(sky), cache, BRICK, scratch=tmp_path)
    assert (row["status"], row["files"]) == ("cached", 10)
    assert fetch_brick(str(tmp_path / "nothing"), cache, BRICK) == row, "taken from the cache"
    with BrickReader(cache, BRICK, scratch=tmp_path) as remote, BrickReader(str(sky), BRICK) as local:
        assert np.array_equal(remote.cut(5, 6, 64).image, local.cut(5, 6, 64).image)
    assert fetch_brick(cache, str(tmp_path / "back"), BRICK) == row
    assert fetch_brick(cache, str(tmp_path / "back"), "0594m305")["status"] == "missing"
