"""The method's theorems and estimators, measured on spaces small enough to be enumerated: one claim a file.

A claim's module has `measure(small) → Claim` and PANELS, its plots from the claim's data alone.
"""
