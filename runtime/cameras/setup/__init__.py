"""Setting a camera up: what its exposures show without a bundle, and normal frames recorded for calibration."""
