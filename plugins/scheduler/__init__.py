"""Bundled policies of the scheduler axis."""
