"""From a target and an untrained flow to a trained flow."""
