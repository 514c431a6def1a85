"""One command per module; ``export.cli`` registers them."""
