"""Cases on which tools/research/measure_estimators.py measures estimators and λ samplers."""
