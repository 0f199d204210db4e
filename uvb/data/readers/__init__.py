"""Readers of people's own files. Named data sets are one level up."""
