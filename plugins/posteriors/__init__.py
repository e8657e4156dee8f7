"""Networks of amortised posteriors q(λ | x, x_t)."""
