"""MLflow's pages of a study, and report.html, in a real browser."""

import shutil
import time

import pytest

from tests.support import fake_study

pytest.importorskip("playwright", reason="the package playwright is not installed")

from tests.support.browser import LINES, browser, chromium, open_page, open_view
from tests.support.mlflow_server import PATIENCE, MlflowServer
from tests.support.mlflow_study import complete, empty_mlflow_db, make_spec, write_tables

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium() is None, reason="no Chromium or Chrome is installed"),
]

MODELS, SIGMAS = ("uvb", "deen"), (0.3, 0.5, 1.0)


@pytest.fixture(scope="module")
def chrome():
    with browser() as launched:
        yield launched


@pytest.fixture(scope="module")
def projected(tmp_path_factory):
    """A small study on an MLflow server: the server's address, the paths of the study's views, and the id of its run."""
    from pipelines.files.store import Store
    from pipelines.tracking.tracker import Tracker

    folder = tmp_path_factory.mktemp("served")
    store = Store(folder / "study")
    specs = [make_spec(model, sigma) for model in MODELS for sigma in SIGMAS]
    for spec in specs:
        complete(store, spec)
    write_tables(store, specs, folder)
    shutil.copy(empty_mlflow_db(), folder / "mlflow.db")
    warnings: list[str] = []
    tracker = Tracker(f"sqlite:///{folder}/mlflow.db", "uvb", "digits", store, warnings.append, log_models=False)
    tracker.start()
    assert tracker.finish("FINISHED"), warnings
    with MlflowServer(folder / "mlflow.db", folder) as server:
        yield server.address, tracker.view_paths, tracker._projection.parent.run_id


def chart(page, title):
    """The lines of one metric's chart: name -> [x, y]. MLflow draws each line twice, the second time as a faint band."""
    points = """title => [...document.querySelectorAll('.js-plotly-plot')]
        .filter(plot => plot.data.length && plot.data.every(line => (line.metricKey ?? line.name ?? '').includes(title)))
        .map(plot => plot.data.map(line => [line.name, Array.from(line.x), Array.from(line.y)]))[0]"""
    return {name: [x, y] for name, x, y in page.evaluate(points, title)}


def test_models_view_lists_runs_with_their_numbers(chrome, projected):
    address, views, _ = projected
    problems: list[str] = []
    page = open_page(chrome, problems, viewport={"width": 1700, "height": 900})
    open_view(page, address, views["models"], runs=6)
    for model in MODELS:
        for sigma in SIGMAS:
            page.get_by_role("link", name=f"{model} σ={sigma:g}").wait_for()
    for column in ("dataset", "model", "sigma", "test_loss", "test_loss_stderr", "train_loss"):
        page.get_by_role("columnheader", name=column, exact=True).first.wait_for()
    assert page.get_by_role("gridcell", name="3.3", exact=True).count() == 1  # UVB's test loss at σ = 0.3
    assert not [p for p in problems if "Failed to load resource" not in p]  # MLflow's own page asks for a missing file


def test_models_view_draws_all_loss_curves_together(chrome, projected):
    address, views, _ = projected
    page = open_page(chrome, [], viewport={"width": 1700, "height": 900})
    open_view(page, address, f"{views['models']}&compareRunsMode=CHART", runs=6)
    page.locator(LINES).nth(5).wait_for()
    lines = chart(page, "test_loss")
    assert len(lines) == 6
    assert all(x == [1, 2, 3, 4] and y == [10, 9, 8, 7] for x, y in lines.values())


def test_sigma_view_is_one_chart_with_a_line_for_each_model(chrome, projected):
    address, views, _ = projected
    page = open_page(chrome, [], viewport={"width": 1700, "height": 900})
    open_view(page, address, views["sigma"], runs=3)  # UVB, DEEN and the floor
    page.locator(LINES).nth(4).wait_for()
    lines = chart(page, "loss_over_sigma")
    assert lines["UVB over σ"] == [[30, 50, 100], [3.3, 3.5, 4.0]]
    assert lines["DEEN over σ"] == [[30, 50, 100], [4.3, 4.5, 5.0]]


def test_sigma_view_draws_charts_that_can_be_read_on_a_narrow_screen(chrome, projected):
    address, views, _ = projected
    page = open_page(chrome, [], viewport={"width": 1280, "height": 800})
    open_view(page, address, views["sigma"], runs=3)
    page.locator(LINES).nth(4).wait_for()
    widths = page.eval_on_selector_all(".js-plotly-plot", "all => all.map(plot => plot.getBoundingClientRect().width)")
    assert min(widths) > 400


def test_study_run_links_its_views(chrome, projected):
    address, views, run_id = projected
    page = open_page(chrome, [], viewport={"width": 1700, "height": 900})
    page.goto(f"{address}/#/experiments/{views['models'].split('/')[3]}/runs/{run_id}")
    assert page.get_by_role("link", name="loss over σ as one chart").get_attribute("href").endswith(views["sigma"])
    page.get_by_role("link", name="Its models in a table").wait_for()


def test_mlflow_first_page_shows_the_numbers_of_the_study(chrome, projected):
    address, _, _ = projected
    page = open_page(chrome, [], viewport={"width": 1500, "height": 900})
    page.goto(address)
    page.get_by_text("UVB 4, DEEN 5 (digits, σ = 1)").first.wait_for()


def test_sigma_view_has_no_empty_section(chrome, projected):
    address, views, _ = projected
    page = open_page(chrome, [], viewport={"width": 1500, "height": 900})
    open_view(page, address, views["sigma"], runs=3)
    page.locator(LINES).nth(4).wait_for()
    assert page.get_by_text("System metrics").count() == 0
    assert page.get_by_text("Loss over 100 σ").count() == 1


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    from pipelines.reporting.page import build_report

    return build_report(fake_study.make(tmp_path_factory.mktemp("reported") / "digits"))


@pytest.mark.parametrize(
    ("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")], ids=lambda v: str(v)
)
def test_report_opens_without_problems_at_every_width_and_in_the_dark(chrome, report, width, scheme):
    problems: list[str] = []
    page = open_page(chrome, problems, viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.goto(report.as_uri())
    page.wait_for_load_state()
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(map(int, background.removeprefix("rgb(").rstrip(")").split(",")[:3])) / 3
    assert (brightness > 128) == (scheme == "light"), background
    boxes = page.eval_on_selector_all("figure svg", "all => all.map(e => e.getBoundingClientRect().width)")
    assert len(boxes) > 20
    assert all(box > 100 for box in boxes), "a drawing has no width"
    assert not problems


def test_report_chart_shows_values_and_zooms(chrome, report):
    problems: list[str] = []
    page = open_page(chrome, problems, viewport={"width": 1280, "height": 900})
    page.goto(report.as_uri())
    figure = page.locator("#loss_over_sigma_digits_test")
    figure.hover()
    figure.locator(".live svg").wait_for()
    figure.locator(".live path[aria-roledescription=point]").nth(3).hover(force=True)
    tooltip = page.locator("#vg-tooltip-element")
    tooltip.get_by_text("noise level σ").wait_for()
    ticks = "e => [...e.querySelectorAll('text')].map(t => t.textContent)"
    before = figure.locator(".live svg").evaluate(ticks)
    page.keyboard.down("Shift")
    page.mouse.wheel(0, -400)
    page.keyboard.up("Shift")
    deadline = time.monotonic() + PATIENCE
    while figure.locator(".live svg").evaluate(ticks) == before:
        assert time.monotonic() < deadline, "the wheel did not zoom"
        page.wait_for_timeout(100)
    assert not problems


def test_report_film_moves_unless_the_reader_wants_less_motion(chrome, report):
    page = open_page(chrome, [], viewport={"width": 1280, "height": 900})
    page.goto(report.as_uri())
    film = page.locator("figure[id^=film_] svg").first
    moving = "e => [...e.querySelectorAll('*')].map(x => getComputedStyle(x).animationName).filter(n => n != 'none')"
    assert set(film.evaluate(moving)) == {"film"}
    calm = open_page(chrome, [], reduced_motion="reduce")
    calm.goto(report.as_uri())
    assert calm.locator("figure[id^=film_] svg").first.evaluate(moving) == []
