"""What moves points of a density."""
