"""Training: the loop, its state, objectives, optimizers and data parallelism. It imports neither experiments nor Ray."""
