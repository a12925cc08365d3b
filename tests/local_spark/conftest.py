"""A small mini sky, painted once for all tests: 600-pixel bricks of every kind."""

import pytest

from darkhaloscope.simulated.sky_plan import SkyConfig
from local_spark.mini_sky import paint_sky

SMALL = SkyConfig(bricks=5, size="small")


@pytest.fixture(scope="session")
def small_config():
    return SMALL


@pytest.fixture(scope="session")
def small_sky(tmp_path_factory):
    """Folder of the painted small sky."""
    out = tmp_path_factory.mktemp("mini") / "sky"
    paint_sky(out, SMALL, processes=1)
    return out
