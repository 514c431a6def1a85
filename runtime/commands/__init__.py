"""One command per module; ``runtime.cli`` registers them."""
