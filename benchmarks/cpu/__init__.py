"""Benchmarks for CPUs."""
