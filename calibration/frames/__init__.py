"""Frames on disk, read and prepared; the station's geometry."""
