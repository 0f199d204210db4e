"""Readers of people's own files. Named data sets live one level up."""
