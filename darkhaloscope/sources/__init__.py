"""Source galaxies: banks of images with sizes and colours, how they are built, and how rows draw from them."""
