"""Training: the loop, its state, objectives, optimizers, data parallelism. It knows no experiment and no Ray."""
