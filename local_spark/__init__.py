"""A whole survey on one machine: the simulated mini sky, and the smoke runs that use it."""
