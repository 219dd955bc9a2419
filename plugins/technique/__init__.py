"""Bundled policies of the technique axis."""
