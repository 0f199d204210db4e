"""Readers of the user's own image files and of data sets of the Hugging Face hub. Named data sets are in `uvb.data`."""
