"""Sources of frames. Each only makes Frames and does not know how they are used."""
