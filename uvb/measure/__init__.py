"""What is measured of a trained model: losses, internals, mixing, convexity. Pure functions; no drawing."""
