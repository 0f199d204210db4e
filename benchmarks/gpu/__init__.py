"""What a lent GPU is for: `python -m benchmarks.gpu.run`, and what packs and collects for it."""
