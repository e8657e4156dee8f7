"""Estimators of the mixture's negative log-likelihood."""
