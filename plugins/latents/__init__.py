"""Laws of λ."""
