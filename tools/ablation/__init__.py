"""A grid of trainings and evaluations: what tools/ablate.py reads, runs and collects."""
