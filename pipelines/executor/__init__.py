"""Train and measure one model in this process, without Ray. Ray workers, GPU scripts and plain scripts share this.

It is not in `uvb` because it writes a study's folder and knows experiments, which training must not.
"""
