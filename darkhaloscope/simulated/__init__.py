"""A simulated sky: objects, observing conditions and pixels as the survey has them; numpy, scipy and numba only."""
