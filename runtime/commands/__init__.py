"""One command a module; ``runtime.cli`` registers them."""
