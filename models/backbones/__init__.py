"""Frozen networks that turn images into vectors: records, weights, engines."""
