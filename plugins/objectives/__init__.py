"""Training objectives beside those of di4c.losses."""
