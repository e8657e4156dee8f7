"""Reverse steps."""
