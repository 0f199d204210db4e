"""Use a GPU that is lent for minutes: `python -m benchmarks.gpu.run`, and the scripts around it (docs/gpu.md)."""
