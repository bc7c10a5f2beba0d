"""Results as pages, one HTML file each."""
