"""Feature extractors of images, and their registry."""
