"""Ways in which λ enters a student."""
