"""Models that are distilled."""
