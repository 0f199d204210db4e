"""The report's headline: which model is better, by how much, and with what interval."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from pipelines.reporting import pair_tables
from pipelines.reporting.headlines import all_headlines, headlines, lone_headlines
from pipelines.reporting.numbers import decimals
from pipelines.reporting.page import build_report
from pipelines.reporting.render import said
from pipelines.reporting.statistics import interval, own_estimator
from pipelines.reporting.summary import summary
from pipelines.reporting.tables import build_tables
from tests.support import fake_study
from uvb.models.capacity import widths_at
from uvb.spec import RunSpec


def stored_losses(root: Path, spec: RunSpec) -> np.ndarray:
    """The test loss of a model's energy for each image, from its task's arrays."""
    arrays = load_file(root / "tasks" / "losses" / spec.spec_id / "arrays.safetensors")
    return arrays["test/energy"].astype(float)


def test_headline_is_what_the_files_say(study: Path, page: str) -> None:
    tables = build_tables(study)
    pair = tables["pairs"].query("first == 'uvb' and split == 'test' and sigma == 1.0").iloc[0]
    (headline,) = headlines(tables["losses"], tables["pairs"])
    assert (headline.difference.low, headline.difference.high) == pytest.approx((pair["low"], pair["high"]))
    assert headline.difference.high < 0
    sentence, detail = said(headline)
    assert "UVB has a lower test loss than DEEN" in sentence
    assert sentence in page
    digits = decimals(pair["stderr"])
    assert f"−{-pair['low']:.{digits}f}" in detail
    assert "200 test images" in detail
    counts = "Of 8 noise levels, UVB has the lower loss at 8, DEEN at 0, and the interval includes zero at 0."
    assert f"{counts} These intervals also cover images only." in detail
    exact = tables["losses"].query("split == 'test' and sigma == 1.0")["nonparametric"].iloc[0]
    assert f"The training set's exact posterior mean has a loss of {exact:.{max(2, digits - 1)}f}." in detail


@pytest.mark.parametrize(
    ("shift", "verdict", "order"),
    [
        (
            0.05,
            "UVB and DEEN cannot be told apart: their test losses are {:.2f} and {:.2f} (one training each).",
            ("uvb", "deen"),
        ),
        (1.0, "DEEN has a lower test loss than UVB: {:.2f} against {:.2f} (one training each).", ("deen", "uvb")),
    ],
)
def test_headline_names_the_lower_model_first(study: Path, shift: float, verdict: str, order: tuple[str, str]) -> None:
    """The headline also gives the lower loss first. If the models cannot be told apart, UVB is first."""
    tables = build_tables(study)
    pairs = tables["pairs"].assign(difference=shift, low=shift - 0.1, high=shift + 0.1, stderr=0.05)
    rows = tables["losses"].query("split == 'test' and sigma == 1.0 and estimator == 'energy'").set_index("model")["loss"]
    assert verdict.format(*rows[list(order)]) in said(headlines(tables["losses"], pairs)[0])[0]


def test_headline_over_two_seeds_matches_the_stored_losses(tmp_path: Path) -> None:
    """The test computes every number again from the tasks' arrays. The headline is about the larger σ."""
    for sigma, seed, model in itertools.product((0.5, 1.0), (0, 1), ("uvb", "deen")):
        fake_study.add_model(tmp_path, fake_study.spec(model, sigma, seed=seed))
    uvb, deen = ([stored_losses(tmp_path, fake_study.spec(model, seed=seed)) for seed in (0, 1)] for model in ("uvb", "deen"))
    differences = [a - b for a, b in zip(uvb, deen, strict=True)]
    means = [d.mean() for d in differences]
    error = np.mean([d.std(ddof=1) / len(d) ** 0.5 for d in differences])
    tables = build_tables(tmp_path)
    (headline,) = headlines(tables["losses"], tables["pairs"])
    assert headline.row.sigma == 1.0
    assert headline.first == pytest.approx(np.mean(uvb), rel=1e-6)
    assert headline.second == pytest.approx(np.mean(deen), rel=1e-6)
    assert headline.difference.mean == pytest.approx(np.mean(means), rel=1e-6)
    spread = abs(means[0] - means[1]) / 2  # the standard error of the mean of two trainings
    half = ((12.7062 * spread) ** 2 + (1.959964 * error) ** 2) ** 0.5  # 97.5 % quantiles: Student's t with 1 d.f., normal
    assert headline.difference.low == pytest.approx(np.mean(means) - half, rel=1e-5)
    assert headline.difference.high == pytest.approx(np.mean(means) + half, rel=1e-5)
    digits = decimals(error)
    assert f"It is the mean of 2 seeds (s.d. over seeds {np.std(means, ddof=1):.{digits}f})" in said(headline)[1]
    assert f"lower test loss than DEEN: {np.mean(uvb):.3f} against {np.mean(deen):.3f}." in said(headline)[0]
    one = [interval(group) for _, group in tables["pairs"].query("split == 'test' and first == 'uvb'").groupby("sigma")]
    below = sum(high < 0 for _, _, high in one)
    assert f"UVB has the lower loss at {below}, DEEN at 0, and the interval includes zero at {2 - below}." in said(headline)[1]


def test_lone_headline_is_of_the_largest_noise_level(tmp_path: Path) -> None:
    for sigma, model in itertools.product((0.5, 1.0), ("uvb", "vae")):
        fake_study.add_model(tmp_path, fake_study.spec(model, sigma, dataset="mnist"))
        fake_study.add_reference(tmp_path, fake_study.spec(model, sigma, dataset="mnist"))
    losses = build_tables(tmp_path)["losses"]
    uvb = losses.query("model == 'uvb' and sigma == 1.0 and split == 'test' and estimator == 'energy'").iloc[0]
    digits = decimals(uvb["stderr"])
    (lone,) = lone_headlines(losses)
    sentence, detail = said(lone)
    assert sentence == f"At σ = 1.0 on mnist, UVB has a test loss of {uvb['loss']:.{digits}f}."
    assert detail == (
        f"The standard error over test images is {uvb['stderr']:.{digits}f}. The paper's loss is 15. "
        f"The training set's exact posterior mean has a loss of {fake_study.floor(1.0) + 0.09:.{digits}f}. "
        f"Always answering the mean image has a loss of {4.74:.{digits}f}."
    )


def test_headline_of_each_data_set_is_shown_with_or_without_a_pair(tmp_path: Path) -> None:
    """Digits have a pair. MNIST has UVB alone."""
    for model, dataset in (("uvb", "digits"), ("deen", "digits"), ("uvb", "mnist")):
        fake_study.add_model(tmp_path, fake_study.spec(model, dataset=dataset))
    tables = build_tables(tmp_path)
    found = [said(headline)[0] for headline in all_headlines(tables["losses"], tables["pairs"])]
    assert "UVB has a lower test loss than DEEN" in found[0]
    assert "on mnist, UVB has a test loss of" in found[1]
    assert len(found) == 2
    page = build_report(tmp_path).read_text()
    assert all(sentence in page for sentence in found)
    assert found == summary(tmp_path)[:2]


def test_headline_and_pair_table_include_other_models(tmp_path: Path) -> None:
    """The headline and a second table have the other models. A note names the model that has no match."""
    for sigma, model in itertools.product((0.5, 1.0), ("uvb", "deen", "uvb_laplace")):
        fake_study.add_model(tmp_path, fake_study.spec(model, sigma))
    fake_study.add_model(tmp_path, fake_study.spec("vae", widths=widths_at("vae", (1, 8, 8), 0.25)))
    tables = build_tables(tmp_path)
    (headline,) = headlines(tables["losses"], tables["pairs"])
    assert "UVB has a lower test loss than DEEN" in said(headline)[0]
    of_main, of_others = pair_tables.pair_tables(tables["pairs"], tables["losses"])
    assert of_main.head == ["σ", "UVB − DEEN", "95 % CI", "UVB − DEEN", "95 % CI"]
    assert of_others.groups == [("", 1), ("UVB, Laplace b = σ", 4)]
    assert of_others.head == ["σ", "minus UVB", "95 % CI", "minus DEEN", "95 % CI"]
    assert [row[0].text for row in of_others.rows] == ["0.5", "1.0"]
    laplace, uvb, deen = (stored_losses(tmp_path, fake_study.spec(m)) for m in ("uvb_laplace", "uvb", "deen"))
    for column, other in ((1, uvb), (3, deen)):
        difference = laplace - other
        stderr = difference.std(ddof=1) / len(difference) ** 0.5
        digits = decimals(stderr)
        ends = [f"{difference.mean() + z * 1.959964 * stderr:+.{digits}f}".replace("-", "−") for z in (-1, 1)]
        cells = of_others.rows[1][column : column + 2]
        assert [cell.text for cell in cells] == [f"{difference.mean():+.{digits}f}", f"[{', '.join(ends)}]"]
        assert cells[0].best
    against_uvb = f"{of_others.rows[1][1].text}, 95 % CI {of_others.rows[1][2].text}"
    assert said(headline)[1].endswith(f"Other pairs: UVB, Laplace b = σ − UVB is {against_uvb}.")
    assert of_others.notes[-1].startswith("Not compared: VAE on Y. No UVB or DEEN")
    assert not any("VAE on Y" in note for note in of_main.notes)


def test_headline_names_models_of_fewer_seeds(tmp_path: Path) -> None:
    for seed, model in itertools.product((0, 1), ("uvb", "deen")):
        fake_study.add_model(tmp_path, fake_study.spec(model, seed=seed))
    fake_study.add_model(tmp_path, fake_study.spec("uvb_laplace", seed=1))
    tables = build_tables(tmp_path)
    (headline,) = headlines(tables["losses"], tables["pairs"])
    assert "mean of 2 seeds" in said(headline)[1]
    assert said(headline)[1].endswith(" (of 1 seed).")
    of_main, of_others = pair_tables.pair_tables(tables["pairs"], tables["losses"])
    assert any("trainings" in note for note in of_main.notes)
    assert not any("trainings" in note for note in of_others.notes)
    fake_study.add_model(tmp_path, fake_study.spec("uvb_laplace", seed=7))  # no UVB has this seed
    tables = build_tables(tmp_path)
    # Only the table of UVB - DEEN has training losses. The other models' table is about the test set, so it is left out here.
    assert len(pair_tables.pair_tables(tables["pairs"].query("split == 'train'"), tables["losses"])) == 1


def test_headline_without_uvb_compares_the_other_models(tmp_path: Path) -> None:
    for model in ("uvb_laplace", "deen"):
        fake_study.add_model(tmp_path, fake_study.spec(model))
    tables = build_tables(tmp_path)
    (headline,) = headlines(tables["losses"], tables["pairs"])
    assert "DEEN has a lower test loss than UVB, Laplace b = σ:" in said(headline)[0]
    own = own_estimator(tables["losses"]).query("split == 'test'").set_index("model")["loss"]
    assert (headline.first, headline.second) == (own["uvb_laplace"], own["deen"])
    assert headline.difference.low > 0


def test_pair_table_has_the_headlines_interval(tmp_path: Path) -> None:
    for seed, model in itertools.product((0, 1), ("uvb", "deen")):
        fake_study.add_model(tmp_path, fake_study.spec(model, seed=seed))
    tables = build_tables(tmp_path)
    (headline,) = headlines(tables["losses"], tables["pairs"])
    (table,) = pair_tables.pair_tables(tables["pairs"], tables["losses"])
    ((_, difference, between, *_),) = table.rows
    assert f"{difference.text}, 95 % CI {between.text}" in said(headline)[1]
    assert table.notes[-1] == "Means over seeds. The intervals cover images and trainings."


def test_summary_is_the_headline_and_the_losses_at_a_few_noise_levels(study: Path) -> None:
    """The summary has the losses of the table at four of the eight noise levels."""
    losses = build_tables(study)["losses"]
    sentence, head, *rows, mean_image = summary(study)
    assert sentence.startswith("At σ = 1.0 on digits, UVB has a lower test loss than DEEN")
    assert head.split("  ")[0] == "test loss on digits"
    assert re.findall("σ = (...)", head) == ["0.3", "0.5", "0.8", "1.0"]
    assert [row.split("  ")[0] for row in rows] == ["UVB", "DEEN", "σ-VAE", "UVB, Laplace b = σ", "VAE on Y"]
    at = losses.query("model == 'uvb' and sigma == 1.0 and split == 'test' and estimator == 'energy'").iloc[0]
    digits = decimals(at["stderr"])
    assert rows[0].endswith(f"{at['loss']:.{digits}f} ± {at['stderr']:.{digits}f}")
    assert mean_image.split()[-1] == "4.74"


def test_report_without_losses_has_no_headline(bare: Path) -> None:
    page = build_report(bare).read_text()
    assert "No headline" in page
    assert '<div class="headline">' not in page
