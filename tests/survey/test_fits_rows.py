import fitsio
import numpy as np
import pytest
from survey_testing import write_plane

from darkhaloscope.survey.errors import FitsBroken
from darkhaloscope.survey.fits_rows import open_rows, text


def test_columns_come_in_lower_case_and_native_order_and_text_without_trailing_blanks(tmp_path):
    rows = np.array([(b"PSF ", 1.5, True), (b"REX", -2.0, False), (b"SER ", 7.0, True)],
                    dtype=[("Type", "S4"), ("FLUX_r", ">f4"), ("BRICK_PRIMARY", "?")])  # fmt: skip
    path = str(tmp_path / "t.fits")
    fitsio.write(path, rows)
    with open_rows(path) as table:
        columns = table.read(["flux_r", "type", "nonesuch", "brick_primary"], 0, 99)
    assert text(columns["type"]).tolist() == ["PSF", "REX", "SER"]
    assert columns["flux_r"].dtype == np.dtype("=f4") and columns["flux_r"].tolist() == [1.5, -2, 7]
    assert columns["brick_primary"].tolist() == [True, False, True] and len(columns) == 3


def test_a_file_without_a_table_says_so(tmp_path):
    plane = write_plane(tmp_path, "image", "r", np.zeros((210, 210), np.float32))
    with pytest.raises(FitsBroken, match="no binary table"), open_rows(str(plane)):
        pass
