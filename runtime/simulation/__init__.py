"""``asperity simulate``: a station without a model and without a camera."""
