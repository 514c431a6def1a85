"""What a calibration found: thresholds, golden frames, its folder."""
