"""Training the small point encoder's weights that come with Asperity."""
