"""The report: one page that needs no other file, shows the study's numbers, and leaves out what was not measured."""

import base64
import dataclasses
import html
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from pipelines.files.study_files import StudyFiles
from pipelines.report import Args, build
from pipelines.reporting import cells, figures, loss_tables, model_tables, pair_tables
from pipelines.reporting.facts import flat, run_facts
from pipelines.reporting.figures import Picture, Study, drawings, register
from pipelines.reporting.figures.images import rows_of_images, strip
from pipelines.reporting.figures.style import PALETTE, THEME
from pipelines.reporting.figures.svg import file_name, standalone, to_svg
from pipelines.reporting.headlines import headlines
from pipelines.reporting.page import PARTS, build_report
from pipelines.reporting.statistics import main_group, over_seeds, own_estimator
from pipelines.reporting.tables import build_tables
from pipelines.words import duration
from tests.support import fake_study
from tests.support.builders import ROOT
from uvb.errors import UserError
from uvb.models.capacity import widths_at


class Checker(HTMLParser):
    """Collects ids and references, and checks that every element is closed."""

    VOID = frozenset({"meta", "br", "img", "link", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.handle_startendtag(tag, attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.ids.append(value)
            if name in ("src", "href", "xlink:href") and value:
                self.loads.append(value)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_is_whole_and_loads_nothing(page: str) -> None:
    checker = Checker()
    checker.feed(page)
    assert not checker.open
    assert len(checker.ids) == len(set(checker.ids)), "two figures share an id"
    inner = {link[1:] for link in checker.loads if link.startswith("#")}
    assert inner <= set(checker.ids)
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in checker.loads)
    assert not re.search(r"url\((?!#)", page)
    assert "@import" not in page
    assert len(page) < 3e6


def test_page_shows_all_charts_without_its_scripts(study: Path, page: str) -> None:
    """Each chart is a picture. The page also has the chart's data, with the same numbers, from which a script can draw."""
    scripts = re.findall(r"<script( [^>]*)?>(.*?)</script>", page, re.S)
    charts = [json.loads(text) for kind, text in scripts if "json" in kind]
    assert len(scripts) == len(charts) + 2
    assert sum("gzip" in kind for kind, _ in scripts[-2:]) == 1
    still = re.sub(r"<script.*?</script>", "", page, flags=re.S)
    assert still.count('role="img"') == page.count("<figure ")
    pair = build_tables(study)["pairs"].query("split == 'test' and first == 'uvb' and sigma == 1.0").iloc[0]
    shown = [row for row in charts[0]["data"]["values"] if row["x"] == 1.0]
    assert [row["y"] for row in shown] == [pytest.approx(pair["difference"], rel=1e-5)]
    assert (shown[0]["low"], shown[0]["high"]) == pytest.approx((pair["low"], pair["high"]), rel=1e-5)


def test_report_shows_every_drawing_and_writes_it_to_figures(study: Path, page: str) -> None:
    untitled = PARTS["found"]  # figures at the top of the page have no heading
    shown = set(re.findall(r"<h3>([^<]*)", page))
    missing = {d.name for d in drawings() if d.name not in untitled and html.escape(d.title, quote=False) not in shown}
    assert missing == {"loss_over_capacity", "training_size", "mixing"}, "the made-up study has no results of these"
    assert "Not in this study" in page
    assert page.count(": no results of “") == len(missing)
    files = {p.stem for p in (study / "figures").glob("*.svg")}
    assert len(files) == page.count("<figure ") > 20
    assert all(any(name.startswith(kind) for name in files) for kind in untitled)
    assert {"curves_digits", "gap_digits", "kl_digits"} <= files
    for path in (study / "figures").glob("*.svg"):
        ElementTree.parse(path)


def test_headline_compares_models_with_different_sets_of_sizes(tmp_path: Path) -> None:
    """UVB has three sizes, and DEEN has two. The headline compares the middle UVB with the larger DEEN, of equal size."""
    for model, factors in (("uvb", (0.5, 1.0, 2.0)), ("deen", (0.5, 1.0))):
        for factor in factors:
            fake_study.add_model(tmp_path, fake_study.spec(model, widths=widths_at(model, (1, 8, 8), factor)))
    tables = build_tables(tmp_path)
    assert len(headlines(tables["losses"], tables["pairs"])) == 1
    assert len(pair_tables.pair_tables(tables["pairs"], tables["losses"])) == 1


def test_training_size_is_drawn_at_equal_steps(tmp_path: Path) -> None:
    """24 steps of 64 images are 1 epoch of 1,500 images, 2 of 750, or 8 of 188. Two trainings have other numbers of steps."""
    spec = fake_study.spec("uvb")
    for images, epochs in ((1500, 1), (750, 2), (188, 8), (188, 1), (1500, 9)):
        data = dataclasses.replace(spec.data, train_images=images)
        recipe = dataclasses.replace(spec.recipe, epochs=epochs, batch_size=64)
        fake_study.add_model(tmp_path, dataclasses.replace(spec, data=data, recipe=recipe))
    study = Study(StudyFiles(tmp_path), build_tables(tmp_path))
    drawing = next(d for d in drawings() if d.name == "training_size")
    (picture,) = drawing.pictures(study)
    assert "24 steps of 64 images each" in picture.caption
    rows = picture.figure.spec["data"]["values"]
    lines = {name: [row["x"] for row in rows if row["series"] == name] for name in ("UVB, test", "UVB, train")}
    assert list(lines.values()) == [[188, 750, 1500]] * 2
    assert len(rows) == 6


def test_pair_table_names_models_without_a_pair(tmp_path: Path) -> None:
    for model, factor in (("uvb", 1.0), ("deen", 4.0)):
        fake_study.add_model(tmp_path, fake_study.spec(model, widths=widths_at(model, (1, 8, 8), factor)))
    tables = build_tables(tmp_path)
    (table,) = pair_tables.pair_tables(tables["pairs"], tables["losses"])
    assert (table.caption, table.rows) == ("Paired difference of the losses on digits: none.", [])
    assert table.notes[0].startswith("Not compared: UVB, DEEN. No UVB or DEEN")
    assert table.notes[0] in build_report(tmp_path).read_text()
    alone = tables["losses"].query("model == 'uvb'")
    assert pair_tables.pair_tables(tables["pairs"], alone) == []


@pytest.mark.parametrize(
    ("accuracy", "said"),
    [
        (None, ""),
        (0.83, " The classifier is right on 83% of the denoised test images x̂(y) (97% of the clean images)."),
        (
            0.3,
            " The classifier is right on 30% of the denoised test images x̂(y) (97% of the clean images), so these classes say "
            "little.",
        ),
    ],
)
def test_captions_tell_the_classifiers_accuracy(study: Path, tmp_path: Path, accuracy: float | None, said: str) -> None:
    """If the accuracy is below one half, the captions also say that the classes say little."""
    shutil.copytree(study, tmp_path, dirs_exist_ok=True)
    for path in (tmp_path / "tasks" / "walk_jump").glob("*/result.json"):
        fake_study.write(
            path, json.loads(path.read_text()) | {"classifier_accuracy": accuracy, "classifier_accuracies": {"clean": 0.97}}
        )
    for path in (tmp_path / "tasks" / "nebula").glob("*/result.json"):
        fake_study.write(path, json.loads(path.read_text()) | {"converged": [True] * 20})
    captions = [
        picture.caption
        for drawing in drawings()
        if drawing.name in ("walk_jump", "nebula")
        for picture in drawing.pictures(Study(StudyFiles(tmp_path), {}))
        if "class" in picture.caption.lower() and "read left to right" not in picture.caption  # not the images of a chain
    ]
    assert len(captions) >= 3
    assert all(caption.endswith("." + said) for caption in captions)


def test_report_names_missing_parts(bare: Path) -> None:
    page = build_report(bare).read_text()
    for line in ("No capacity table", "No loss tables", "No encoder and decoder tables", "No figures", "no timings.json"):
        assert line in page
    assert "The tables leave out models that are not trained to the end" in page
    assert "<figure " not in page
    assert "no model is trained yet" in page
    assert page.count(": no results of “") == len(drawings())
    assert "no results of “nebula” (the study is not finished: run its command again)" in page


def test_report_tells_how_to_get_what_a_finished_study_lacks(tmp_path: Path) -> None:
    fake_study.add_model(tmp_path, fake_study.spec("uvb"))
    page = build_report(tmp_path).read_text()
    assert "no results of “nebula” (<code>--experiments</code> default nebula makes them)" in page
    assert "no results of “mixture” (only <code>--dataset</code> mixture has them)" in page


def test_run_facts_are_about_the_last_command(tmp_path: Path) -> None:
    for seed in (0, 1):
        fake_study.add_model(tmp_path, fake_study.spec("uvb", seed=seed))
    fake_study.write(tmp_path / "study.json", {"specs": [fake_study.spec("uvb").spec_id]})
    facts = dict(run_facts(StudyFiles(tmp_path)))
    assert (facts["seeds"], facts["also in the folder"]) == ("0", "1 model of earlier commands")
    assert "1 trained model of 1 kind on digits" in build_report(tmp_path).read_text()


def test_report_names_unfinished_models_of_the_last_command(tmp_path: Path) -> None:
    wanted = [fake_study.spec("uvb", seed=1), fake_study.spec("uvb", 0.3)]
    for spec in (*wanted, fake_study.spec("deen")):
        fake_study.write(tmp_path / "models" / spec.spec_id / "spec.json", spec.to_json())
    fake_study.write(tmp_path / "study.json", {"specs": [spec.spec_id for spec in wanted]})
    said = (
        "The tables leave out models that are not trained to the end: uvb σ=0.3, uvb σ=1 seed=1; 1 model of earlier commands."
    )
    assert said in build_report(tmp_path).read_text()


def test_report_escapes_names(tmp_path: Path) -> None:
    fake_study.add_model(tmp_path, fake_study.spec("uvb"))
    evil = "<script>alert(1)</script>"
    fake_study.write(tmp_path / "study.json", {"name": "R&D", "provenance": {"cpu": evil, "device": '"><img src=x>'}})
    page = build_report(tmp_path).read_text()
    assert evil not in page
    assert "&lt;script&gt;" in page
    assert "R&amp;D" in page
    assert "<img" not in page


def test_report_survives_an_experiment_that_cannot_be_drawn(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    of = fake_study.spec("uvb")
    fake_study.add_model(tmp_path, of)
    fake_study.result(tmp_path, "energies", of.spec_id, {}, f_clean=np.ones(3))
    page = build_report(tmp_path).read_text()
    assert "Energies of clean, denoised and noisy images (Fig. 1a): its results could not be drawn (KeyError" in page
    told = caplog.text.strip()  # one line for each problem, without a traceback
    assert "Traceback" not in told
    assert "Traceback" in Path(told.split("its traceback is in ")[1].split()[0]).read_text()
    assert "Test loss on digits" in page


def test_loss_table_marks_the_best_and_shows_the_paper(tmp_path: Path) -> None:
    for model in ("uvb", "deen"):
        fake_study.add_model(tmp_path, fake_study.spec(model, dataset="mnist"))
    test, train = loss_tables.loss_tables(build_tables(tmp_path)["losses"])
    assert test.groups == [("", 1), ("UVB", 2), ("DEEN", 2), ("", 1)]
    (row,) = test.rows
    assert [cell.text for cell in row][::2] == ["1.0", "15.0", "19.9"]
    assert [cell.best for cell in row] == [False, True, False, False, False, False]
    assert (test.head[-1], row[-1].text) == ("y itself", "784")
    assert "Table 2" in test.caption
    assert train.rows[0][2].text == "14.7"


def test_over_seeds_gives_mean_and_spread(tmp_path: Path) -> None:
    for seed in range(3):
        fake_study.add_model(tmp_path, fake_study.spec("uvb", seed=seed))
    losses = own_estimator(build_tables(tmp_path)["losses"]).query("split == 'test'")
    (row,) = over_seeds(losses).itertuples()
    assert row.seeds == 3
    assert row.loss == pytest.approx(losses["loss"].mean())
    assert row.spread == pytest.approx(losses["loss"].std(ddof=1))


def test_main_group_leaves_out_ablations(tmp_path: Path) -> None:
    for sigma in (0.5, 1.0):
        fake_study.add_model(tmp_path, fake_study.spec("uvb", sigma))
    fake_study.add_model(tmp_path, fake_study.spec("uvb", activation="relu"))
    losses = build_tables(tmp_path)["losses"]
    assert set(main_group(losses)["activation"]) == {"silu"}
    captions = [t.caption for t in loss_tables.other_losses(losses)]
    assert any("activations" in caption for caption in captions)


def test_report_is_the_same_each_time(study: Path, page: str) -> None:
    assert build_report(study).read_text() == page


def test_figures_take_their_colours_from_the_page(page: str) -> None:
    """No drawing has a fixed colour of the light theme. Each colour is a variable, which has a dark shade too."""
    body = page[page.index("<body>") :]
    for name, (light, dark) in PALETTE.items():
        assert light not in re.sub(r"var\([^)]*\)", "", body), name
        assert f"--{name.replace('_', '-')}:{dark}" in page
    assert "prefers-color-scheme:dark" in page
    assert "image-rendering:pixelated" in page
    assert not re.search(r"fill: ?(#ffffff|white)", body)


def test_rows_of_images_keep_their_pixels() -> None:
    """The picture in the SVG has the pixels of the array. The page enlarges it."""
    images = np.random.default_rng(0).uniform(size=(3, 1, 8, 8)).astype(np.float32)
    canvas = strip(images)
    assert canvas.shape == (8, 26, 4)
    np.testing.assert_array_equal(canvas[:, 9:17, 0], images[1, 0])
    assert (canvas[:, 8, 3] == 0).all()
    svg = to_svg(rows_of_images([("row", images)], per_line=3), "x")
    (data,) = re.findall(r"base64,([A-Za-z0-9+/=\s]+)", svg)
    head = base64.b64decode(re.sub(r"\s", "", data))
    assert int.from_bytes(head[16:20], "big") == 26
    assert int.from_bytes(head[20:24], "big") == 8


def test_to_svg_escapes_text() -> None:
    with matplotlib.rc_context(THEME):
        figure = Figure()
        figure.add_subplot().set_xlabel("<b>&</b>")
        svg = to_svg(figure, file_name('a "b"/../c'), 'say "<x>"')
    ElementTree.fromstring(standalone(svg).split("\n", 1)[1])
    assert "<b>" not in svg
    assert file_name('a "b"/../c') == "a-b-..-c"


def test_register_adds_a_drawing_to_the_report(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures.DRAWINGS, "known", dict(figures.DRAWINGS.known))
    drawings()

    @register("mine", title="My own experiment", needs="mine", order=1)
    def pictures(study: Study) -> Iterator[Picture]:
        yield Picture("mine", "My caption.", Figure())

    page = build_report(bare).read_text()
    assert "My own experiment" in page
    assert "My caption." in page
    assert StudyFiles(bare).root.joinpath("figures", "mine.svg").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (Args(()), "no study given"),
        (Args((Path("a"),), Path("x.html")), "own folder"),
        (Args((Path("nowhere"),)), "not a study"),
    ],
)
def test_report_refuses_wrong_arguments_in_one_line(args: Args, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(args)


def test_report_command_prints_its_path_or_one_line(bare: Path, tmp_path: Path) -> None:
    """The last line is the report's path. After a mistake there is one line, and the exit code is 2."""
    script = [sys.executable, str(ROOT / "pipelines" / "report.py")]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)}
    good = subprocess.run([*script, str(bare)], capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert good.returncode == 0, good.stderr
    assert good.stdout.splitlines()[-1] == str(bare / "report.html")
    bad = subprocess.run([*script, "none"], capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert bad.returncode == 2
    assert bad.stderr.count("\n") == 1
    assert bad.stderr.startswith("error: none is not a study")


def test_cells_print_the_digits_that_errors_allow() -> None:
    assert (cells.number(3.69412, 0.0123).text, cells.number(3.69412, 0.0123).error) == ("3.694", "0.012")
    assert cells.number(692.31, 4.2).text == "692.3"
    assert cells.number(None).text == cells.number(pd.NA).text == "–"
    assert cells.number(-0.5, 0.1).text == "−0.50"
    assert cells.number(float("nan"), 0.1).text == "–"
    assert cells.printed(15.0).text == "15.0"
    assert cells.printed(692.0).text == "692"
    assert duration(7) == "7.0 s"
    assert duration(314) == "5 min 14 s"
    assert duration(11220) == "3 h 7 min"
    assert duration(59.96) == "1 min 0 s"
    assert model_tables.describe_quantity("recon_clean_y_half") == "‖y − μ_y(z)‖²/2σ², z ~ q(z|x)"
    assert flat({"a": {"b_c": 1}, "d": None, "e": [1, 2]}) == [("a b c", "1"), ("e", "1, 2")]


def test_difference_table_has_each_models_own_widths(tmp_path: Path) -> None:
    specs = [fake_study.spec(model, dataset="mnist") for model in ("uvb", "deen")]
    for spec in specs:
        fake_study.add_model(tmp_path, spec)
    (table,) = model_tables.difference_tables(StudyFiles(tmp_path).models.values())
    shown = {row[0].text: (row[1].text, row[2].text) for row in table.rows if row[0].text.startswith("widths")}
    assert shown == {f"widths of {spec.model.upper()}": (str(spec.widths),) * 2 for spec in specs}


def test_sampling_table_tells_seeds_apart(tmp_path: Path) -> None:
    """The sampling table's columns and the encoder table's caption name the seed only if there are several seeds."""
    shown: dict[int, tuple[list[str], str, str]] = {}
    for seed in (3, 4):
        spec = fake_study.spec("uvb", seed=seed)
        fake_study.add_model(tmp_path, spec)
        tables = build_tables(tmp_path)
        described = tables["internals"].iloc[[-1]][["dataset", "model", "sigma", "recipe", "activation", "batch_size",
                                                    "train_images", "widths", "epochs"]]  # fmt: skip
        rest = {"variant": "jump", "sampler": "langevin", "delta": 0.2, "steps": 9, "steps_per_jump": 1, "chains": 2,
                "diverged": 0, "classes_visited": 1, "steps_to_all": None, "iat": 1.0, "ess_per_step": 1.0, "split_rhat": 1.0,
                "classifier_accuracy": 1.0}  # fmt: skip
        sampling = pd.concat([described.assign(seed=s, **rest) for s in range(3, seed + 1)])
        (mixing,), (inside,) = model_tables.sampling_table(sampling), model_tables.internals_tables(tables["internals"])
        shown[seed] = mixing.head[1:], mixing.caption, inside.caption
    (one_head, one_mixing, one_inside), (two_head, two_mixing, two_inside) = shown[3], shown[4]
    assert (one_head, two_head) == (["UVB"], ["UVB, seed 3", "UVB, seed 4"])
    assert one_mixing == two_mixing == "Mixing of walk-jump sampling: digits, σ = 1.0."
    assert "of seed 3" in two_inside
    assert "seed" not in one_inside
