"""Train and measure one model in this process, without Ray. Ray workers, GPU scripts and plain scripts use this package.

This package is outside `uvb`, because `uvb` must not write a study's folder.
"""
