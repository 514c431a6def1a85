"""One command per module; ``calibration.cli`` registers them."""
