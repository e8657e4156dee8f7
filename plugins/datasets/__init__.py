"""Data sources: tokens by index."""
