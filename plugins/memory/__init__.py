"""Bundled policies of the memory axis."""
