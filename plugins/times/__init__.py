"""Laws of t beside those of di4c.losses.times."""
