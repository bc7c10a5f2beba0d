"""The HTTP service: Stan programs in, posteriors out."""
