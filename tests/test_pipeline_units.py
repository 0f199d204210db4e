"""The orchestration's parts, without a Ray cluster: configuration, layout, groups, one training's life, tasks."""

import dataclasses
import itertools
import json
from pathlib import Path

import pytest
import torch
from conftest import tiny_spec

from pipelines.config import StudyConfig, build_recipe, build_specs, chosen_experiments
from pipelines.cost_model import training_flops
from pipelines.groups import balanced, fitted, make_groups, require_honourable
from pipelines.images import images_path, load_images, save_images
from pipelines.progress import TrainingProgress, clock
from pipelines.resources import TRIAL_CPUS, Capacity, Layout, choose_layout
from pipelines.store import Store
from pipelines.tasks import Settings, Task, run_task, tasks_for, unfinished
from pipelines.training import KEPT_STATES, STUCK_LIMIT, Training
from uvb.capacity import parameters
from uvb.data import ImageSet
from uvb.errors import UserError
from uvb.evaluate import EvalConfig
from uvb.experiments import Result, get_experiment
from uvb.load import load
from uvb.plan import Plan
from uvb.spec import RunSpec
from uvb.train import Progress
from uvb.train_state import TrainState

PLAN = Plan(precision="fp64")


# ------------------------------------------------------------------------------------------------------ configuration


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"sigmas": (0.5, 0.0)}, "sigma = 0.0"),
        ({"sigmas": ()}, "--sigmas"),
        ({"models": (), "extra_models": ()}, "--models"),
        ({"num_workers": -1}, "--num-workers -1"),
        ({"eval_draws": 0}, "--eval-draws 0"),
        ({"scale": 1.5}, "--scale 1.5"),
        ({"study": "a/b"}, "plain name"),
    ],
)
def test_config_refuses_in_one_line(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        StudyConfig(**wrong)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"models": ("uvv",)}, "unknown model 'uvv'"),
        ({"activation": "tanh"}, "unknown activation 'tanh'"),
        ({"recipe": "slow"}, "unknown recipe 'slow'"),
        ({"train_images": 1501}, "1501: digits has 1500"),
        ({"epochs": 0}, "epochs=0"),
    ],
)
def test_specs_refuse_in_one_line(digits: ImageSet, wrong: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        build_specs(StudyConfig(**wrong), digits)


def test_default_study_is_the_papers_comparison(digits: ImageSet) -> None:
    specs = build_specs(StudyConfig(), digits)
    assert len(specs) == len({s.spec_id for s in specs}) == 2 * 8 + 1
    assert [(s.sigma, s.objective) for s in specs if s.model == "vae"] == [(1.0, "elbo_y")]
    counts = {m: parameters(m, digits.shape, next(s.widths for s in specs if s.model == m)) for m in ("uvb", "deen", "vae")}
    assert abs(counts["deen"] / counts["uvb"] - 1) <= 0.01
    assert counts["vae"] == counts["uvb"]


def test_recipe_takes_changes_and_seeds_multiply(digits: ImageSet) -> None:
    config = StudyConfig(epochs=3, batch_size=50, learning_rate=0.1, seeds=(0, 1), sigmas=(0.5,))
    recipe = build_recipe(config)
    assert (recipe.epochs, recipe.batch_size, recipe.learning_rate) == (3, 50, 0.1)
    assert len(build_specs(config, digits)) == 2 * 3


def test_experiments_by_name() -> None:
    assert "losses" in chosen_experiments(StudyConfig())
    assert chosen_experiments(StudyConfig(experiments=("losses", "losses"))) == ["losses"]
    assert set(chosen_experiments(StudyConfig())) <= set(chosen_experiments(StudyConfig(experiments=("all",))))
    with pytest.raises(UserError, match="unknown experiment"):
        chosen_experiments(StudyConfig(experiments=("nothing",)))


# -------------------------------------------------------------------------------------------------- layout and groups


def capacity(cpus: int, gpus: int = 0, nodes: int = 1) -> Capacity:
    return Capacity(cpus, gpus, ((cpus // nodes, gpus // nodes),) * nodes, cluster=nodes > 1)


def some_specs(digits: ImageSet, n: int = 6) -> list[RunSpec]:
    models, sigmas = ("uvb", "deen", "vae"), (1.0, 0.7, 0.5, 0.3)
    return [tiny_spec(digits, m, sigma=s) for s, m in itertools.islice(itertools.product(sigmas, models), n)]


@pytest.mark.parametrize("cpus", [1, 2, 3, 7, 16, 64])
@pytest.mark.parametrize("workers", [0, 1, 2, 5])
@pytest.mark.parametrize("concurrent", [0, 1, 2, 4])
def test_layout_never_asks_for_more_than_there_is(digits: ImageSet, cpus: int, workers: int, concurrent: int) -> None:
    config = StudyConfig(num_workers=workers, concurrent_trials=concurrent)
    if workers > cpus:
        with pytest.raises(UserError, match=f"asked for {workers} workers.*this machine has {cpus} CPU"):
            choose_layout(config, capacity(cpus), some_specs(digits))
        return
    layout = choose_layout(config, capacity(cpus), some_specs(digits))
    assert layout.concurrency * (TRIAL_CPUS + layout.workers * layout.cpus_per_worker) <= cpus + 1e-9
    assert layout.cpus_per_worker > 0
    assert layout.workers == (workers or min(2, cpus))
    assert layout.device == "cpu"


@pytest.mark.parametrize("nodes", [(1, 1, 1, 1, 1), (2, 1), (2, 2, 2), (3, 3), (16, 1), (0, 4)])
@pytest.mark.parametrize("workers", [0, 1, 2, 3])
@pytest.mark.parametrize("concurrent", [0, 1, 2])
def test_every_worker_fits_on_a_node_whole(digits: ImageSet, nodes: tuple[int, ...], workers: int, concurrent: int) -> None:
    has = Capacity(sum(nodes), 0, tuple((cpus, 0) for cpus in nodes), cluster=True)
    layout = choose_layout(StudyConfig(num_workers=workers, concurrent_trials=concurrent), has, some_specs(digits))
    places = sum(int((cpus - layout.concurrency * TRIAL_CPUS) / layout.cpus_per_worker + 1e-9) for cpus in nodes if cpus)
    assert places >= layout.concurrency * layout.workers


def test_a_worker_larger_than_every_node_is_refused(digits: ImageSet) -> None:
    has = Capacity(6, 0, ((2, 0),) * 3, cluster=True)
    with pytest.raises(
        UserError, match=r"asked for 2 workers of 3 CPUs each.*\(3 nodes\) has 6 CPUs.*2 CPUs each, as one node has"
    ):
        choose_layout(StudyConfig(cpus_per_worker=3.0), has, some_specs(digits))


def test_expected_nodes_are_like_those_there_are(digits: ImageSet) -> None:
    growing = Capacity(10, 0, ((4, 0),), cluster=True)
    assert growing.node_cpus == [4, 4, 2]
    assert Capacity(8, 0, ((0, 0),), cluster=True).node_cpus == [8]
    assert choose_layout(StudyConfig(), growing, some_specs(digits)).concurrency == 5


def test_two_workers_on_two_cpus(digits: ImageSet) -> None:
    assert choose_layout(StudyConfig(), capacity(2), some_specs(digits)) == Layout(2, 1, 0.99, 0.0)


@pytest.mark.parametrize(("cpus", "workers", "threads"), [(1, 1, 1), (2, 1, 2), (2, 2, 1), (4, 1, 4), (4, 2, 2), (16, 1, 16)])
def test_a_worker_has_as_many_threads_as_cpus(digits: ImageSet, cpus: int, workers: int, threads: int) -> None:
    """The hundredth of a CPU that a trial takes does not cost a worker a whole thread."""
    layout = choose_layout(StudyConfig(num_workers=workers, concurrent_trials=1), capacity(cpus), some_specs(digits))
    assert layout.threads == threads


def test_a_gpu_worker_lies_on_one_node_whole(digits: ImageSet) -> None:
    """Two nodes of one GPU hold no worker of two, and two of 0.7; asked for more, it is refused, not waited for."""
    has = Capacity(16, 2, ((8, 1), (8, 1)), cluster=True)
    specs = some_specs(digits)
    with pytest.raises(UserError, match=r"2 GPUs a worker.*ask for at most 1"):
        choose_layout(StudyConfig(use_gpu=True, gpus_per_worker=2.0), has, specs)
    assert choose_layout(StudyConfig(use_gpu=True, gpus_per_worker=0.7), has, specs).concurrency == 2
    with pytest.raises(UserError, match="ask for at most 2"):
        choose_layout(StudyConfig(use_gpu=True, gpus_per_worker=0.7, num_workers=3), has, specs)


def test_gpus_are_an_explicit_choice(digits: ImageSet) -> None:
    specs = some_specs(digits)
    assert choose_layout(StudyConfig(), capacity(16, gpus=4), specs).device == "cpu"
    layout = choose_layout(StudyConfig(use_gpu=True), capacity(16, gpus=4), specs)
    assert (layout.workers, layout.concurrency, layout.resources["GPU"]) == (1, 4, 1.0)
    assert layout.concurrency * (TRIAL_CPUS + layout.cpus_per_worker) <= 16
    small = Capacity(72, 8, ((64, 0), *[(1, 1)] * 8), cluster=True)  # a large head, and GPUs on nodes of one CPU
    assert choose_layout(StudyConfig(use_gpu=True), small, specs).cpus_per_worker < 1
    with pytest.raises(UserError, match=r"0 GPUs.*--expect-gpus"):
        choose_layout(StudyConfig(use_gpu=True), capacity(16), specs)
    with pytest.raises(UserError, match=r"asked for 1 x 8 workers of 1 GPU each.*4 GPUs"):
        choose_layout(StudyConfig(use_gpu=True, num_workers=8), capacity(16, gpus=4), specs)


def test_groups_partition_and_balance(digits: ImageSet) -> None:
    specs = some_specs(digits, 11)
    for count in (1, 2, 3, 20):
        parts = balanced(specs, count)
        assert sorted(s.spec_id for part in parts for s in part) == sorted(s.spec_id for s in specs)
        loads = [sum(map(training_flops, part)) for part in parts]
        assert max(loads) - min(loads) <= max(map(training_flops, specs))


def test_small_models_share_a_group_and_searches_do_not(digits: ImageSet) -> None:
    specs, layout = some_specs(digits), Layout(2, 1, 0.99, 0.0)
    assert len(make_groups({Plan(workers=2): specs}, layout, one_each=False)) == 1
    assert len(make_groups({Plan(workers=2): specs}, layout, one_each=True)) == len(specs)
    many = [dataclasses.replace(s, recipe=dataclasses.replace(s.recipe, epochs=10**8)) for s in specs]
    assert len(make_groups({Plan(workers=2): many}, layout, one_each=False)) == len(specs)  # large ones get their own


def test_stored_plan_is_honoured_or_refused(digits: ImageSet) -> None:
    layout, has = Layout(2, 1, 0.99, 0.0), capacity(2)
    require_honourable(Plan(workers=1), layout, has)
    with pytest.raises(UserError, match=r"3 workers.*--replan"):
        require_honourable(Plan(workers=3), layout, has)
    with pytest.raises(UserError, match=r"device cuda.*--replan"):
        require_honourable(Plan(device="cuda"), layout, has)
    wide = make_groups({Plan(workers=4): some_specs(digits)}, layout, one_each=False)
    assert 4 * fitted(layout, wide).cpus_per_worker <= 2 * layout.cpus_per_worker


# ------------------------------------------------------------------------------------------------ one training's life


@pytest.fixture
def store(tmp_path: Path, digits: ImageSet) -> Store:
    """A study's folder with the images in it."""
    store = Store(tmp_path / "study")
    save_images(store, digits)
    return store


class Killed(Exception):
    """Stands for a SIGKILL at that point."""


class Interrupted(Training):
    """Saves at every yield, and dies after so many."""

    def __init__(self, spec: RunSpec, store: Store, pulses: int) -> None:
        super().__init__(spec, PLAN, store, 1e-9, 0)
        self.left = pulses

    def _pulse(self, progress: Progress, state: TrainState) -> None:
        super()._pulse(progress, state)
        self.left -= 1
        if not self.left:
            raise Killed


def train(spec: RunSpec, store: Store) -> Training:
    training = Training(spec, PLAN, store, 1e9, 0)
    assert training.run()["outcome"] == "done"
    return training


def folder_of(store: Store, spec: RunSpec) -> Path:
    assert store.local_path
    return store.local_path / "models" / spec.spec_id


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load(folder / "model").state_dict()


def test_images_travel_through_the_store_and_are_mended(store: Store, digits: ImageSet) -> None:
    assert load_images(store.uri, digits.checksum).checksum == digits.checksum
    assert store.local_path
    path = store.local_path / images_path(digits.checksum)
    path.write_bytes(path.read_bytes()[:-100])
    load_images.cache_clear()
    with pytest.raises(UserError, match="damaged"):
        load_images(store.uri, digits.checksum)
    save_images(store, digits)
    assert load_images(store.uri, digits.checksum).checksum == digits.checksum


def test_killed_training_ends_bit_identical(store: Store, tmp_path: Path, digits: ImageSet) -> None:
    spec = tiny_spec(digits)
    with pytest.raises(Killed):
        Interrupted(spec, store, 1).run()
    assert not (folder_of(store, spec) / "done.json").exists()
    resumed = train(spec, store)
    assert resumed.history["starts"] == 2
    assert any("going on from step" in note for note in resumed.notes)

    whole = Store(tmp_path / "whole")
    save_images(whole, digits)
    train(spec, whole)
    a, b = weights(folder_of(store, spec)), weights(folder_of(whole, spec))
    assert all(torch.equal(a[name], b[name]) for name in b)
    rows = [json.loads((folder_of(s, spec) / "curves.json").read_text())["rows"] for s in (store, whole)]
    assert [[r[k] for k in ("epoch", "train_loss", "test_loss", "kl")] for r in rows[0]] == [
        [r[k] for k in ("epoch", "train_loss", "test_loss", "kl")] for r in rows[1]
    ]
    assert [r["epoch"] for r in rows[0]] == [1, 2]
    done = json.loads((folder_of(store, spec) / "done.json").read_text())
    assert (done["restarts"], done["epochs"]) == (1, 2)
    assert not (folder_of(store, spec) / "state").exists()


def test_finished_training_is_left_alone(store: Store, digits: ImageSet) -> None:
    spec = tiny_spec(digits)
    train(spec, store)
    before = store.stamps(f"models/{spec.spec_id}")
    assert Training(spec, PLAN, store, 1e9, 0).run()["outcome"] == "done"
    assert store.stamps(f"models/{spec.spec_id}") == before


def test_states_are_few_and_the_newest_whole_one_is_used(store: Store, digits: ImageSet) -> None:
    spec = dataclasses.replace(tiny_spec(digits), recipe=dataclasses.replace(tiny_spec(digits).recipe, epochs=5))
    with pytest.raises(Killed):
        Interrupted(spec, store, 4).run()
    states = sorted((folder_of(store, spec) / "state").iterdir())
    assert len(states) == KEPT_STATES
    damaged = states[-1] / "state.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-8])
    training = Training(spec, PLAN, store, 1e9, 0)
    assert training._look() == states[-2].name
    assert any(states[-1].name in note and "not used" in note for note in training.notes)


def test_checkpoint_of_another_configuration_is_refused_by_name(store: Store, digits: ImageSet) -> None:
    spec = tiny_spec(digits)
    other = dataclasses.replace(spec, sigma=0.5)
    with pytest.raises(Killed):
        Interrupted(other, store, 1).run()
    (folder_of(store, other) / "state").rename(folder_of(store, spec).parent / "moved")
    folder_of(store, spec).mkdir()
    (folder_of(store, spec).parent / "moved").rename(folder_of(store, spec) / "state")
    assert Training(spec, PLAN, store, 1e9, 0).run()["outcome"] == "failed"
    assert "sigma: 0.5 != 1.0" in json.loads((folder_of(store, spec) / "failed.json").read_text())["error"]


def test_diverging_training_fails_alone(store: Store, digits: ImageSet) -> None:
    spec = tiny_spec(digits)
    wild = dataclasses.replace(spec.recipe, learning_rate=1e300, clip=float("inf"), warmup=0.0, schedule="constant")
    spec = dataclasses.replace(spec, recipe=wild)
    assert Training(spec, PLAN, store, 1e9, 0).run()["outcome"] == "failed"
    assert "diverged" in json.loads((folder_of(store, spec) / "failed.json").read_text())["error"]
    assert not (folder_of(store, spec) / "done.json").exists()


def test_training_that_always_dies_at_one_place_is_given_up(
    store: Store, digits: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = tiny_spec(digits)

    def die(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(TrainState, "fresh", die)
    for _ in range(STUCK_LIMIT):
        with pytest.raises(Killed):
            Training(spec, PLAN, store, 1e9, 0).run()
    assert Training(spec, PLAN, store, 1e9, 0).run()["outcome"] == "failed"


def test_full_disk_does_not_end_a_training(store: Store, digits: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = tiny_spec(digits)

    def full(self: Training, state: TrainState) -> None:
        raise UserError("cannot write there: No space left on device; free some space there")

    monkeypatch.setattr(Training, "_save", full)
    training = Training(spec, PLAN, store, 1e-9, 0)
    assert training.run()["outcome"] == "done"
    assert any("No space left" in note for note in training.notes)


# ------------------------------------------------------------------------------------------------- tasks and progress

SETTINGS = Settings(EvalConfig(train_images=60, test_images=50, draws=2), Plan(), scale=0.02)


def test_tasks_are_those_that_apply(digits: ImageSet) -> None:
    specs = [tiny_spec(digits, m, sigma=s) for s in (0.5, 1.0) for m in ("uvb", "deen")]
    tasks = tasks_for(specs, ["losses", "internals"])
    assert sum(t.name == "reference" for t in tasks) == 2  # one a noise level
    assert sum(t.name == "losses" for t in tasks) == 4
    assert [t.spec.model for t in tasks if t.name == "internals"] == ["uvb", "uvb"]
    for task in tasks_for(specs, chosen_experiments(StudyConfig(experiments=("all",)))):
        if task.name != "reference" and get_experiment(task.name).where == "largest":
            assert task.spec.sigma == 1.0


def test_tasks_are_done_once_and_again_when_measured_otherwise(store: Store, digits: ImageSet) -> None:
    spec = tiny_spec(digits)
    train(spec, store)
    tasks = tasks_for([spec], ["losses"])
    assert unfinished(tasks, store, SETTINGS) == tasks
    for task in tasks:
        run_task(task, store, SETTINGS)
    assert unfinished(tasks, store, SETTINGS) == []
    assert unfinished(tasks, store, dataclasses.replace(SETTINGS, seed=1)) == tasks
    exact = store.read_json(f"{tasks[0].folder}/result.json")
    rows = store.read_json(f"{tasks[1].folder}/result.json")["rows"]
    ours = {(r["split"], r["estimator"]): r["loss"] for r in rows}
    assert exact["floor"] < ours["train", "energy"]  # nothing is below the floor
    assert exact["floor"] < exact["nonparametric"]


def test_nan_is_not_written(store: Store, digits: ImageSet) -> None:
    from pipelines.tasks import write_result

    task = Task("losses", "x", tiny_spec(digits))
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_result(store, task, Result({"loss": float("nan")}), SETTINGS)
    assert unfinished([task], store, SETTINGS) == [task]


def test_progress_counts_work_and_tells_each_line_once(store: Store, digits: ImageSet) -> None:
    specs = [tiny_spec(digits, "uvb"), tiny_spec(digits, "deen")]
    progress = TrainingProgress(specs, store, tasks=3)
    assert progress.read() == []
    assert progress.work()[0] == 0
    train(specs[0], store)
    store.write_json(f"models/{specs[1].spec_id}/failed.json", {"error": "deen went wrong"})
    assert progress.read() == ["failed: deen went wrong"]
    assert progress.read() == []
    assert progress.finished == 2
    assert progress.work()[0] == progress.work()[1] == sum(map(training_flops, specs))
    assert [clock(s) for s in (5, 65, 3700)] == ["5 s", "1 min 5 s", "1 h 1 min"]
