"""Survey images become colour pictures: red is red, colour survives brightness, bad pixels are black."""

import numpy as np
import pytest

from darkhaloscope.report.pictures import BAND_WEIGHT, lupton_rgb


def test_bands_map_to_colours_red_to_blue():
    image = np.zeros((3, 4, 6))
    image[2, 1, 2] = 0.3  # z
    image[0, 3, 5] = 0.1  # g
    picture = lupton_rgb(image, "grz")
    assert picture.shape == (4, 6, 3) and picture.dtype == np.uint8
    assert picture[1, 2].argmax() == 0 and picture[3, 5].argmax() == 2
    np.testing.assert_array_equal(lupton_rgb(image[::-1], "zrg"), picture)


def test_a_grey_source_is_grey_at_every_brightness():
    grey = np.array([1 / BAND_WEIGHT[b] for b in "grz"])[:, None, None] * np.array([0.01, 0.1, 1.0, 100.0])
    picture = lupton_rgb(grey, "grz", minimum=0.0).astype(int)
    assert (np.ptp(picture, axis=2) <= 1).all()
    assert (np.diff(picture[0, :, 0]) >= 0).all()


def test_colour_survives_saturation():
    red = np.stack([np.full((1, 2), 0.01), np.full((1, 2), 0.05), np.array([[1.0, 1000.0]])])
    picture = lupton_rgb(red, "grz")
    assert picture[0, 0].argmax() == 0 and picture[0, 1].argmax() == 0


def test_pixels_without_a_value_are_dark_and_harm_no_other():
    image = np.full((3, 3, 3), 0.02)
    good = lupton_rgb(image)
    image[:, 1, 1] = [np.nan, np.inf, -np.inf]
    picture = lupton_rgb(image)
    assert picture[1, 1].max() < good[1, 1].max()
    np.testing.assert_array_equal(picture[0], good[0])


@pytest.mark.parametrize("bands, planes", [("r", 1), ("gz", 2), ("griz", 4)])
def test_other_numbers_of_bands_make_pictures_too(bands, planes):
    assert lupton_rgb(np.ones((planes, 5, 7)), bands).shape == (5, 7, 3)


@pytest.mark.parametrize("bands, planes", [("gr", 3), ("grx", 3), ("ggr", 3), ("", 0)])
def test_bands_that_do_not_fit_are_refused(bands, planes):
    with pytest.raises(ValueError, match="with one plane for each"):
        lupton_rgb(np.ones((planes, 5, 5)), bands)
