"""What the Legacy Surveys are: bricks, catalogues, coadds, masks, extinction, and splits of their sky."""
