"""Speed and its checks, as ratios within one run: `python -m benchmarks.bench`."""
