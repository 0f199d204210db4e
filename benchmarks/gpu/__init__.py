"""Scripts for a GPU that is lent for minutes: `python -m benchmarks.gpu.run` and its helpers (docs/gpu.md)."""
