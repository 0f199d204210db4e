"""Measure speed, as ratios within one run, and check what is fast: `python -m benchmarks.bench`."""
