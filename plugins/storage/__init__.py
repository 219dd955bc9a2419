"""Bundled policies of the storage axis."""
