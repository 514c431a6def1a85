"""One command a module; ``calibration.cli`` registers them."""
