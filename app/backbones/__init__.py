"""Backbones that can be built, and where their weights come from."""
