"""Training: the loop, its state, objectives, optimizers, data parallelism. It imports neither experiments nor Ray."""
