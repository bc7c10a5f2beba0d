"""What a trained flow says of the target."""
