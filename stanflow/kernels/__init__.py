"""The compiled loops: rows of Stan, and the passes of layers."""
