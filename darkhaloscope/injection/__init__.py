"""Injections: grids, controls, manifest rows, arc plus coadd to stamp, measurements of the arc."""
