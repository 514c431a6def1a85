"""The published form of the method beside ours."""
