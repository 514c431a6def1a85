"""A folder that a camera's own program writes into."""
