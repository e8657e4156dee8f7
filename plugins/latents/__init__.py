"""λ samplers."""
