"""Faster ways to compute the same numbers. The models and methods themselves are in the other packages of `uvb`."""
