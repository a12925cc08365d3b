"""Statistics of scores and rates: intervals, effect sizes, robust noise, calibration."""
