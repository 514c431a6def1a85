"""Sources of frames. Each only makes Frames; none knows what becomes of them."""
