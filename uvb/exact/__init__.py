"""Exact answers to compare models with: empirical Bayes, Gaussian mixtures and simple baselines. Nothing here is trained."""
