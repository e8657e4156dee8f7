"""Which runs a spec makes."""
