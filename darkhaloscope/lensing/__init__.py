"""Deflectors, light profiles, PSFs and the batch renderer: every lensing formula of the project lives here."""
