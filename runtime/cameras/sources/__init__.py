"""Cameras, one file for each kind."""
