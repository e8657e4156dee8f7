"""Procedures carried out: the runs that one spec makes."""
