"""Validation reports: what each stage made, numbers first, then pictures."""
