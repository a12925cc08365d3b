import numpy as np
import pytest
from survey_testing import BRICK

from darkhaloscope.provenance import sha256_of
from darkhaloscope.records import ASSETS
from darkhaloscope.schema import to_batch
from darkhaloscope.survey.checksums import checksums_path, parse_checksums
from darkhaloscope.survey.coadds import BrickReader, file_path
from darkhaloscope.survey.fetch import fetch_brick

TIMES = {"seconds", "tried"}


def _files(cache):
    return sorted(p for p in cache.rglob("*") if p.is_file())


def _timeless(row):
    return {k: v for k, v in row.items() if k not in TIMES}


def test_a_fetched_brick_is_the_sources_and_a_second_run_asks_for_nothing(web, sky, tmp_path):
    cache = tmp_path / "cache"
    row = fetch_brick(web.url, str(cache), BRICK)
    files = _files(cache)
    size = sum(p.stat().st_size for p in files)
    assert _timeless(row) == {
        "brickname": BRICK,
        "status": "cached",
        "cause": "",
        "reason": "",
        "bands": "grz",
        "files": 10,
        "bytes": size,
        "by_checksum": 0,
    }
    assert (
        all(p.read_bytes() == (sky / p.relative_to(cache)).read_bytes() for p in files) and len(files) == 10
    )
    to_batch(ASSETS, {k: [v] for k, v in row.items()})
    before = len(web.requests)
    assert _timeless(fetch_brick(web.url, str(cache), BRICK)) == _timeless(row)
    assert len(web.requests) == before
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
    ("answer", "message", "cause"),
    [
        ("cut", "", "cut off"),
        ("reset", "", "cut off"),
        ("short", "file is truncated", "truncated at the source"),
        ("html", "not a FITS file", "not FITS"),
        (429, "429", "HTTP 429"),
        (503, "503", "HTTP 503"),
        (403, "403", "HTTP 403"),
    ],
)
def test_a_file_that_does_not_arrive_whole_is_never_placed(
    web, sky, patient, tmp_path, answer, message, cause
):
    cache = tmp_path / "cache"
    web.faults["image-r.fits.fz"] = [answer] * 9
    row = fetch_brick(web.url, str(cache), BRICK, client=patient)
    assert (row["status"], row["bands"], row["files"], row["cause"]) == ("failed", "gz", 9, cause)
    assert row["reason"].startswith(f"{BRICK}: {web.url}") and message in row["reason"]
    assert len(_files(cache)) == 9 and not (cache / file_path(BRICK, "image", "r")).exists()
    web.faults.clear()
    before = len(web.requests)
    assert fetch_brick(web.url, str(cache), BRICK, client=patient)["bands"] == "grz"
    assert len(web.requests) == before + 1, "only the file that failed is asked for"
    assert all(p.read_bytes() == (sky / p.relative_to(cache)).read_bytes() for p in _files(cache))


def test_a_file_larger_than_any_of_a_brick_is_refused(web, patient, tmp_path, monkeypatch):
    monkeypatch.setattr("darkhaloscope.survey.fetch.MAX_FILE_BYTES", 5000)
    row = fetch_brick(web.url, str(tmp_path / "cache"), BRICK, client=patient)
    assert (row["status"], row["cause"], row["bands"]) == ("failed", "too large", "")


@pytest.fixture
def release(sky, tmp_path):
    """The brick below a folder named as the survey's, with its file of checksums; (base, that file)."""
    base = tmp_path / "dr10" / "south"
    base.parent.mkdir()
    base.symlink_to(sky)
    sums = base / f"coadd/{BRICK[:3]}/{BRICK}/legacysurvey_dr10_south_coadd_{BRICK[:3]}_{BRICK}.sha256sum"
    files = sorted(sums.parent.glob("*.fits.fz"))
    sums.write_text("".join(f"{sha256_of(f)}  {f.name}\n" for f in files))
    return base, sums


def test_files_are_verified_by_the_surveys_checksums_where_it_has_them(release, tmp_path):
    base, sums = release
    assert fetch_brick(str(base), str(tmp_path / "one"), BRICK)["by_checksum"] == 10
    sums.unlink()
    row = fetch_brick(str(base), str(tmp_path / "two"), BRICK)
    assert (row["status"], row["by_checksum"], row["cause"]) == ("cached", 0, "")


def test_a_file_newer_than_its_published_checksum_is_taken_when_it_arrives_twice_the_same(release, tmp_path):
    base, sums = release
    sums.write_text(sums.read_text().replace(sums.read_text()[:8], "0" * 8, 1))
    row = fetch_brick(str(base), str(tmp_path / "cache"), BRICK)
    assert (row["status"], row["files"], row["by_checksum"], row["cause"]) == (
        "cached",
        10,
        9,
        "other checksum",
    )
    assert "not of the published checksum" in row["reason"]


def test_a_file_that_arrives_different_each_time_is_refused(release, tmp_path, monkeypatch):
    base, _ = release
    digests = iter(f"{i:064d}" for i in range(99))
    monkeypatch.setattr("darkhaloscope.survey.fetch.sha256_of", lambda path: next(digests))
    row = fetch_brick(str(base), str(tmp_path / "cache"), BRICK)
    assert (row["status"], row["files"], row["cause"]) == ("failed", 0, "checksum")


def test_the_surveys_checksums_are_read_as_it_writes_them():
    assert checksums_path("https://x.org/legacysurvey/dr10/south/", "0001m002") == (
        "coadd/000/0001m002/legacysurvey_dr10_south_coadd_000_0001m002.sha256sum"
    )
    assert checksums_path("/data/sky", "0001m002") is None
    one, two = "a" * 64, "b" * 64
    text = f"{one}  legacysurvey-0001m002-image-r.fits.fz\n{two} *coadd/000/x.fits\n<html>\n"
    assert parse_checksums(text) == {"legacysurvey-0001m002-image-r.fits.fz": one, "x.fits": two}


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
    assert _timeless(fetch_brick(str(tmp_path / "nothing"), cache, BRICK)) == _timeless(row), "from the cache"
    with BrickReader(cache, BRICK, scratch=tmp_path) as remote, BrickReader(str(sky), BRICK) as local:
        assert np.array_equal(remote.cut(5, 6, 64).image, local.cut(5, 6, 64).image)
    assert _timeless(fetch_brick(cache, str(tmp_path / "back"), BRICK)) == _timeless(row)
    assert fetch_brick(cache, str(tmp_path / "back"), "0594m305")["status"] == "missing"
