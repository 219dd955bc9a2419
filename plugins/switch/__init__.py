"""Bundled policies of the switch axis."""
