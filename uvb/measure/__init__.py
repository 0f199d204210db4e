"""Measures of a trained model: losses, internals, mixing, convexity. All are pure functions. Drawing is not here."""
