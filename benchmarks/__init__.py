"""Benchmarks: speed as ratios within one run (`python -m benchmarks.bench`), and checks of fast code (`gpu/checks.py`)."""
