"""Memory banks and distances to them."""
