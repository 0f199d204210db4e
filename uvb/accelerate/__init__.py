"""Speed: the same numbers in less time. No file here defines physics."""
