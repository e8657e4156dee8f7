"""MaskGIT's parameterisation, under its registry name."""

from di4c.contracts import Raw

__all__ = ["Raw"]
