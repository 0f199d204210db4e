"""The numbers that are typed in `uvb.paper`, compared with the paper's text."""

import itertools
import re
from pathlib import Path

import numpy as np

from uvb import paper


def test_paper_lookups_return_none_where_the_paper_has_no_number() -> None:
    assert paper.loss("mnist", "uvb", 0.7, "test") == 9.27
    assert paper.loss("cifar10", "deen", 1.0, "test") == 52.7
    assert paper.loss("mnist", "uvb_laplace", 1.0, "train") == 58.4
    assert paper.loss("mnist", "uvb_laplace", 1.0, "test") is None
    assert paper.loss("mnist", "uvb", 0.75, "test") is None
    assert paper.loss("digits", "uvb", 1.0, "test") is None
    assert paper.parameters("cifar10", "uvb") == 4.1e7
    assert paper.parameters("digits", "uvb") is None
    assert paper.internal("mnist", "vae", 1.0, "kl_noisy") == 3.70
    assert paper.internal("mnist", "vae", 0.5, "kl_noisy") is None
    assert paper.internal("cifar10", "vae", 1.0, "kl_noisy") is None


def test_paper_gap_grows_with_the_noise() -> None:
    """Losses rise with sigma, and so does the gap between DEEN and UVB. A typing error would break this."""
    for row in paper.LOSSES.values():
        assert len(row) == len(paper.SIGMAS)
        assert list(row) == sorted(row)
    for dataset in ("mnist", "cifar10"):
        for split in ("train", "test"):
            gap = np.subtract(paper.LOSSES[dataset, "deen", split], paper.LOSSES[dataset, "uvb", split])
            assert (np.diff(gap) > 0).all()
            assert gap[-1] > 4.8


def test_paper_numbers_agree_with_its_text(shared: Path) -> None:
    """Compare Tables 1 to 5, Remark 4 and Fig. 2's caption."""
    text = (shared / "paper" / "unnormalized_variational_bayes.md").read_text()

    def numbers(line: str) -> list[float]:
        return [float(n) for n in re.findall(r"\d+\.?\d*", re.sub(r"\$.*?\$|<.*?>|\([a-z]+\)", " ", line))]

    def rows(caption: str) -> list[list[float]]:
        """The numbers in each line of the table above `caption`."""
        block = text[: text.index(caption)].rstrip().split("\n\n")[-1]
        return [numbers(line) for line in block.splitlines()]

    header, *mnist = rows("Table 2: MNIST")
    assert tuple(header) == paper.SIGMAS
    for (split, model), row in zip(itertools.product(("train", "test"), ("uvb", "deen")), mnist, strict=True):
        assert tuple(row) == paper.LOSSES["mnist", model, split]
    header, *cifar = rows("Table 3: CIFAR10")  # each cell holds two losses: UVB's, then DEEN's
    assert tuple(header) == paper.SIGMAS
    for split, row in zip(("train", "test"), cifar, strict=True):
        assert tuple(row[::2]) == paper.LOSSES["cifar10", "uvb", split]
        assert tuple(row[1::2]) == paper.LOSSES["cifar10", "deen", split]
    for caption, quantity in (("Table 4: The encoder", "kl_noisy"), ("Table 5: The reconstruction", "recon_clean_y_half")):
        assert rows(caption)[-1] == [paper.INTERNALS[model, quantity] for model in ("uvb", "vae")]
    (line,) = [line for line in text.splitlines() if line.startswith("MNIST CIFAR10")]
    uvb, deen = ([float(n) for n in re.findall(r"(\d\.\d) \\times", cell)] for cell in line.split("\t")[1:3])
    for i, data in enumerate(("mnist", "cifar10")):
        assert (paper.parameters(data, "uvb"), paper.parameters(data, "deen")) == (uvb[i] * 1e7, deen[i] * 1e7)
    assert f"the training loss saturated at {paper.LAPLACE_TRAIN_LOSS}" in text
    assert f"{paper.ONE_Z_BOUND}" in text[text.index("Figure 2: (denoising") :].splitlines()[0]
