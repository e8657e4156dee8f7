"""Measurements of samples and of samplers."""
