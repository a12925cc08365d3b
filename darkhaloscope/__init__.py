"""Dark Halo Scope: a strong-lens finder for the DESI Legacy Imaging Surveys."""
