"""The published form of the method compared with ours."""
