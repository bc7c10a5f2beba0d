"""A fit held against reference draws."""
