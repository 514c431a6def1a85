"""A whole station measured over its sockets."""
