"""Bundled policies of the host axis."""
