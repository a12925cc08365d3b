"""A known lens within 5 arcsec is told, with where it was published."""

import gzip

import numpy as np
import pytest

from darkhaloscope.search.known import match_known, read_known
from darkhaloscope.survey.errors import CatalogueError

LENSCAT = """name,RA [deg],DEC [deg],zlens,type,grading,ref
J1,10.0,0.0,0.4,galaxy,confident,"https://a?x=1,2"
<b>J2</b>,359.9999,0.0,-,cluster,probable,10.1/b
"""


def test_the_nearest_known_lens_within_5_arcsec_is_told_across_ra_0(tmp_path):
    (tmp_path / "lenscat.csv.gz").write_bytes(gzip.compress(LENSCAT.encode()))
    known = read_known(str(tmp_path / "lenscat.csv.gz"))
    step = 4.9 / 3600
    found = match_known(np.array([10.0, 10.0, 0.0003]), np.array([step, 2 * step, 0.0]), known)
    assert found["known_name"].tolist() == ["J1", "", "<b>J2</b>"]
    assert found["known_reference"].tolist() == ["https://a?x=1,2", "", "10.1/b"]
    assert found["known_grading"].tolist() == ["confident", "", "probable"]
    np.testing.assert_allclose(found["known_arcsec"], [4.9, np.nan, 1.44], rtol=1e-4)


def test_without_a_table_nothing_is_known_and_another_table_is_refused(tmp_path):
    assert match_known(np.zeros(2), np.zeros(2), None)["known_name"].tolist() == ["", ""]
    (tmp_path / "other.csv").write_text("ra,dec\n1,2\n")
    with pytest.raises(CatalogueError, match=r"other\.csv.*RA \[deg\]"):
        read_known(str(tmp_path / "other.csv"))


@pytest.mark.real
def test_the_real_lenscat_is_read_and_finds_itself(real_data):
    known = read_known(str(real_data / "catalogs/lenscat.csv.gz"))
    found = match_known(known["ra"], known["dec"], known)
    assert len(known["ra"]) > 30_000 and np.nanmax(found["known_arcsec"]) < 0.01
