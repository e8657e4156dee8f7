"""Time samplers."""
