"""Statistics, result files and their pages."""
