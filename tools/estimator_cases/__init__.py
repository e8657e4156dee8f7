"""Cases on which tools/measure_estimators.py measures estimators and laws of λ."""
