"""Spark entry points: they plan, distribute and retry; the library does the work."""
