"""Frames as files of any format that vendors' programs write: which files are an exposure's, and what they hold."""
