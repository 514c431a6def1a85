"""Bundles: verified, then opened."""
