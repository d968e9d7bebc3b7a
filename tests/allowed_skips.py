"""Tests that may be skipped, each with its reason. Any other skip fails the run: see `conftest.py`."""

ALLOWED_SKIPS: dict[str, str] = {}
