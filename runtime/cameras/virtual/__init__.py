"""A simulated structured-light camera (ray casting) for virtual parts."""
