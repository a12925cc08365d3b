"""Reasons are counted by kind, whatever row or brick they are of."""

import numpy as np
import pytest
from fake_brick import FakeBrick
from injection_cases import experiment
from survey_testing import BRICK, write_brick

from darkhaloscope.injection.cutouts import grounds_at, psfs_at
from darkhaloscope.search.reasons import short
from darkhaloscope.survey.coadds import BrickReader, file_path
from darkhaloscope.survey.errors import BrickUnreadable


@pytest.mark.parametrize("reason, kind", [
    ("outside the model's training: psfsize_r 1.72 above 1.6; ebv 3", "outside the model's training: psfsize_r"),
    ("host at x -5.0, y 3.1 is outside brick 1500p020, 3600 x 3600 pixels", "the brick's images do not reach there"),
    ("position ra nan, dec 1.0 is not on the sky: expected 0 to 360", "position not on the sky"),
    ("duplicate: within 1 arcsec of row 7", "duplicate"),
    ("band g has no data", "band g has no data"),
    ("0591m305: no image or invvar of bands grz in s3://b/coadd/059/0591m305; expected x", "the brick has no coadds"),
    ("0591m305: image-z not found in /c; bands with image and invvar: gr, expected grz", "the brick lacks a band"),
    ("0591m305: reading it took more than 600 s; see whether /c answers", "the brick took too long"),
    ("0591m305: image-r has 1,204,992 bytes, header says 14,720,640", "the brick's files cannot be read"),
    ("0591m305: has no psfsize map at x 3, y 4 and the brick table gives [nan]", "no usable PSF size"),
])  # fmt: skip
def test_a_reason_is_counted_without_the_numbers_and_names_of_its_row_or_brick(reason, kind):
    assert short(reason) == kind


def refused(sky) -> str:
    with pytest.raises(BrickUnreadable) as told:
        BrickReader(str(sky), BRICK).open()
    return str(told.value)


def test_the_pipelines_own_words_are_known(tmp_path):
    """The reasons as they are made, not as they are copied above: a message that changes must stay known."""
    assert short(refused(tmp_path)) == "the brick has no coadds"
    write_brick(tmp_path, side=100)
    image = tmp_path / file_path(BRICK, "image", "r")
    image.write_bytes(image.read_bytes()[:9_000])
    assert short(refused(tmp_path)) == "the brick's files cannot be read"
    image.unlink()
    assert short(refused(tmp_path)) == "the brick lacks a band"
    far, size = np.array([-50.0]), np.array([[1.4, 0.0, 1.2]])
    (outside,) = grounds_at(FakeBrick(), far, far, experiment())
    (no_psf,) = psfs_at(FakeBrick(sizes=None), -far, -far, size, experiment())
    assert short(str(outside)) == "the brick's images do not reach there"
    assert short(str(no_psf)) == "no usable PSF size"
