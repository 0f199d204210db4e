"""Layouts and groups say how trainings share the machines. These tests need no Ray cluster."""

import dataclasses
import itertools

import pytest

from pipelines.cluster.cost_model import training_flops
from pipelines.cluster.groups import balanced, fitted, make_groups, new_plan, require_usable
from pipelines.cluster.layout import TRIAL_CPUS, Capacity, Layout, choose_layout
from pipelines.study.config import StudyConfig
from tests.support.builders import tiny_spec
from uvb.data import ImageSet
from uvb.errors import UserError
from uvb.plan import Plan
from uvb.spec import RunSpec


def capacity(cpus: int, gpus: int = 0, nodes: int = 1) -> Capacity:
    """The capacity of `nodes` equal nodes, which have `cpus` CPUs and `gpus` GPUs together."""
    return Capacity(cpus, gpus, ((cpus // nodes, gpus // nodes),) * nodes, cluster=nodes > 1)


def some_specs(digits: ImageSet, n: int = 6) -> list[RunSpec]:
    models, sigmas = ("uvb", "deen", "vae"), (1.0, 0.7, 0.5, 0.3)
    return [tiny_spec(digits, m, sigma=s) for s, m in itertools.islice(itertools.product(sigmas, models), n)]


@pytest.mark.parametrize("cpus", [1, 2, 3, 7, 16, 64])
@pytest.mark.parametrize("workers", [0, 1, 2, 5])
@pytest.mark.parametrize("concurrent", [0, 1, 2, 4])
def test_layout_asks_for_no_more_than_there_is(digits: ImageSet, cpus: int, workers: int, concurrent: int) -> None:
    config = StudyConfig(num_workers=workers, concurrent_trials=concurrent)
    if workers > cpus:
        with pytest.raises(UserError, match=f"asked for {workers} workers.*this machine has {cpus} CPU"):
            choose_layout(config, capacity(cpus), some_specs(digits))
        return
    layout = choose_layout(config, capacity(cpus), some_specs(digits))
    assert layout.concurrency * (TRIAL_CPUS + layout.workers * layout.cpus_per_worker) <= cpus + 1e-9
    assert layout.cpus_per_worker > 0
    assert layout.workers == (workers or 1)
    assert layout.device == "cpu"


@pytest.mark.parametrize("nodes", [(1, 1, 1, 1, 1), (2, 1), (2, 2, 2), (3, 3), (16, 1), (0, 4)])
@pytest.mark.parametrize("workers", [0, 1, 2, 3])
@pytest.mark.parametrize("concurrent", [0, 1, 2])
def test_layout_puts_every_worker_on_one_node(digits: ImageSet, nodes: tuple[int, ...], workers: int, concurrent: int) -> None:
    has = Capacity(sum(nodes), 0, tuple((cpus, 0) for cpus in nodes), cluster=True)
    layout = choose_layout(StudyConfig(num_workers=workers, concurrent_trials=concurrent), has, some_specs(digits))
    # A trial itself takes TRIAL_CPUS. At worst, all trials take them from the same node.
    places = sum(int((cpus - layout.concurrency * TRIAL_CPUS) / layout.cpus_per_worker + 1e-9) for cpus in nodes if cpus)
    assert places >= layout.concurrency * layout.workers


def test_layout_refuses_a_worker_larger_than_every_node(digits: ImageSet) -> None:
    has = Capacity(6, 0, ((2, 0),) * 3, cluster=True)
    with pytest.raises(
        UserError, match=r"asked for 1 worker of 3 CPUs each.*\(3 nodes\) has 6 CPUs.*2 CPUs each, the most on one node"
    ):
        choose_layout(StudyConfig(cpus_per_worker=3.0), has, some_specs(digits))


def test_capacity_expects_further_nodes_of_the_present_size(digits: ImageSet) -> None:
    growing = Capacity(10, 0, ((4, 0),), cluster=True)
    assert growing.node_cpus == [4, 4, 2]
    assert Capacity(8, 0, ((0, 0),), cluster=True).node_cpus == [8]
    assert choose_layout(StudyConfig(num_workers=2), growing, some_specs(digits)).concurrency == 5


def test_layout_of_two_cpus(digits: ImageSet) -> None:
    """The numbers of a `Layout` are workers, concurrent trials, CPUs per worker and GPUs per worker."""
    assert choose_layout(StudyConfig(), capacity(2), some_specs(digits)) == Layout(1, 2, 0.99, 0.0)
    assert choose_layout(StudyConfig(num_workers=2), capacity(2), some_specs(digits)) == Layout(2, 1, 0.99, 0.0)
    assert choose_layout(StudyConfig(), capacity(2), some_specs(digits, 1)) == Layout(1, 1, 1.99, 0.0)


@pytest.mark.parametrize(("cpus", "workers", "threads"), [(1, 1, 1), (2, 1, 2), (2, 2, 1), (4, 1, 4), (4, 2, 2), (16, 1, 16)])
def test_layout_gives_a_worker_as_many_threads_as_cpus(digits: ImageSet, cpus: int, workers: int, threads: int) -> None:
    """A trial takes a hundredth of a CPU, but its worker keeps all threads."""
    layout = choose_layout(StudyConfig(num_workers=workers, concurrent_trials=1), capacity(cpus), some_specs(digits))
    assert layout.threads == threads


def test_layout_puts_a_gpu_worker_on_one_node(digits: ImageSet) -> None:
    """Two nodes of one GPU can take no worker of two GPUs. They can take two workers of 0.7 GPUs, but not three."""
    has = Capacity(16, 2, ((8, 1), (8, 1)), cluster=True)
    specs = some_specs(digits)
    with pytest.raises(UserError, match=r"2 GPUs per worker.*ask for at most 1"):
        choose_layout(StudyConfig(use_gpu=True, gpus_per_worker=2.0), has, specs)
    assert choose_layout(StudyConfig(use_gpu=True, gpus_per_worker=0.7), has, specs).concurrency == 2
    with pytest.raises(UserError, match="ask for at most 2"):
        choose_layout(StudyConfig(use_gpu=True, gpus_per_worker=0.7, concurrent_trials=3), has, specs)


def test_layout_uses_gpus_only_when_asked(digits: ImageSet) -> None:
    specs = some_specs(digits)
    assert choose_layout(StudyConfig(), capacity(16, gpus=4), specs).device == "cpu"
    layout = choose_layout(StudyConfig(use_gpu=True), capacity(16, gpus=4), specs)
    assert (layout.workers, layout.concurrency, layout.resources["GPU"]) == (1, 4, 1.0)
    assert layout.concurrency * (TRIAL_CPUS + layout.cpus_per_worker) <= 16
    small = Capacity(72, 8, ((64, 0), *[(1, 1)] * 8), cluster=True)  # a large head node, and GPU nodes of one CPU
    assert choose_layout(StudyConfig(use_gpu=True), small, specs).cpus_per_worker < 1
    with pytest.raises(UserError, match=r"0 GPUs.*--expect-gpus"):
        choose_layout(StudyConfig(use_gpu=True), capacity(16), specs)
    with pytest.raises(UserError, match=r"asked for 1 x 8 workers of 1 GPU each.*4 GPUs"):
        choose_layout(StudyConfig(use_gpu=True, num_workers=8), capacity(16, gpus=4), specs)
    with pytest.raises(UserError, match=r"asked for 1 worker of 20 CPUs each"):
        choose_layout(StudyConfig(use_gpu=True, cpus_per_worker=20), capacity(16, gpus=1), specs)


def test_layout_gives_gpu_workers_parts_of_a_cpu(digits: ImageSet) -> None:
    assert choose_layout(StudyConfig(use_gpu=True), capacity(1, gpus=16), some_specs(digits)).cpus_per_worker == 0.05
    with pytest.raises(UserError, match=r"ask for at most 0\.05 CPUs per worker"):
        choose_layout(StudyConfig(use_gpu=True, cpus_per_worker=1.0), capacity(1, gpus=16), some_specs(digits))


def test_layout_refuses_nodes_without_cpus(digits: ImageSet) -> None:
    bare = Capacity(8, 4, ((8, 0), (0, 4)), cluster=True)
    with pytest.raises(UserError, match=r"need CPUs beside the GPUs.*or give the nodes with GPUs more CPUs"):
        choose_layout(StudyConfig(use_gpu=True), bare, some_specs(digits))
    with pytest.raises(UserError, match=r"0 CPUs.*give --expect-cpus"):
        choose_layout(StudyConfig(), Capacity(0, 0, ((0, 0),), cluster=True), some_specs(digits))


def test_layout_refuses_more_trials_than_a_machine_holds(digits: ImageSet) -> None:
    for count in (150, 300):  # each trial takes a hundredth of a CPU, so its worker gets too little or nothing
        with pytest.raises(UserError, match=f"asked for {count} trials at a time.*--concurrent-trials"):
            choose_layout(StudyConfig(concurrent_trials=count), capacity(2), some_specs(digits))


def test_layout_never_puts_two_workers_of_a_model_on_one_gpu(digits: ImageSet) -> None:
    """NCCL refuses two ranks on one device."""
    has, specs = capacity(16, gpus=1), some_specs(digits, 1)
    assert choose_layout(StudyConfig(use_gpu=True, gpus_per_worker=0.5), has, specs).workers == 1
    with pytest.raises(UserError, match=r"a whole GPU each: give --gpus-per-worker 1, or --num-workers 1"):
        choose_layout(StudyConfig(use_gpu=True, gpus_per_worker=0.5, num_workers=2), has, specs)


def test_make_groups_partitions_and_balances(digits: ImageSet) -> None:
    specs = some_specs(digits, 11)
    for count in (1, 2, 3, 20):
        parts = balanced(specs, count)
        assert sorted(s.spec_id for part in parts for s in part) == sorted(s.spec_id for s in specs)
        loads = [sum(map(training_flops, part)) for part in parts]
        assert max(loads) - min(loads) <= max(map(training_flops, specs))


def test_make_groups_joins_small_models_but_not_searches(digits: ImageSet) -> None:
    specs, layout = some_specs(digits), Layout(2, 1, 0.99, 0.0)
    assert len(make_groups({Plan(workers=2): specs}, layout, one_each=False)) == 1
    assert len(make_groups({Plan(workers=2): specs}, layout, one_each=True)) == len(specs)
    many = [dataclasses.replace(s, recipe=dataclasses.replace(s.recipe, epochs=10**8)) for s in specs]
    assert len(make_groups({Plan(workers=2): many}, layout, one_each=False)) == len(specs)  # each training has its own group


def test_stored_plan_is_honoured_or_refused(digits: ImageSet) -> None:
    layout, has = Layout(2, 1, 0.99, 0.0), capacity(2)
    require_usable(Plan(workers=1), layout, has)
    with pytest.raises(UserError, match=r"3 workers.*--replan"):
        require_usable(Plan(workers=3), layout, has)
    with pytest.raises(UserError, match=r"device cuda.*--replan"):
        require_usable(Plan(device="cuda"), layout, has)
    wide = make_groups({Plan(workers=4): some_specs(digits)}, layout, one_each=False)
    assert fitted(layout, wide) == Layout(4, 1, 0.49, 0.0)  # four workers share the CPUs of two
    narrow = make_groups({Plan(workers=1): some_specs(digits)}, layout, one_each=False)
    assert fitted(layout, narrow) == layout


def test_new_plan_compiles_long_trainings(digits: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """All trainings share one plan, so all of them must be long."""
    monkeypatch.setattr("uvb.plan.has_fast_bf16", lambda device: True)
    monkeypatch.setattr("uvb.plan.has_cpp_compiler", lambda: True)
    short = some_specs(digits)
    long = [dataclasses.replace(spec, recipe=spec.recipe.changed(epochs=10**6)) for spec in short]
    has, config = capacity(2), StudyConfig()
    layout = choose_layout(config, has, short)
    assert new_plan(config, layout, long).compile
    assert not new_plan(config, layout, [*long, short[0]]).compile
    assert not new_plan(dataclasses.replace(config, compile="off"), layout, long).compile
