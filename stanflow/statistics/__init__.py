"""One definition each of what draws and their weights say; knows neither Stan nor torch."""
