"""Search: from a piece of sky, or a list of galaxies, to ranked candidates and catalogues of them."""
