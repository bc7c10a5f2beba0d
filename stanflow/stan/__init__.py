"""A Stan program conditioned on data, as a density on unconstrained space."""
