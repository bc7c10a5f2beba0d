"""The variational families: bijections of a base distribution, in torch."""
