"""Stage 4d: stamps -> completeness of the injections, by theta_E, magnitude, seeing and depth."""

from __future__ import annotations
