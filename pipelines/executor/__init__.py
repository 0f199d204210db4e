"""One model, trained and measured in this process. Ray workers, GPU scripts and plain scripts share it; it knows no Ray.

It lives here and not in `uvb` because it writes a study's folder and knows experiments, which training must not.
"""
