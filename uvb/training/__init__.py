"""Training: the loop, its state, objectives, optimizers, data parallelism. Knows neither experiments nor Ray."""
