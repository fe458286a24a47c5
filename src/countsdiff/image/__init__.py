"""Images on the core that the cells use: pixel intensities 0 to 255 are counts."""
