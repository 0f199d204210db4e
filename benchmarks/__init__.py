"""Measure speed, as ratios within one run (`python -m benchmarks.bench`). Check that fast code is right (`gpu/checks.py`)."""
