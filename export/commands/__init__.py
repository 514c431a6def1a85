"""One command a module; ``export.cli`` registers them."""
