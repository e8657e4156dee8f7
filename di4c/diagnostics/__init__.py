"""What tells a mixture from a product, which atoms of λ are used, and how many components a run needs."""
