"""The benchmarks compute what they claim: the same step in JAX, the same gradients stacked, a GPU run that can be cut short."""

import functools
import json
import subprocess
import sys

import pytest
import torch
from torch import nn

from benchmarks import bench, exact, measure, stacked
from benchmarks.gpu import checks as gpu_checks
from benchmarks.gpu import collect as gpu_collect
from benchmarks.gpu import pack as gpu_pack
from benchmarks.gpu import run as gpu_run
from benchmarks.gpu import trainings as gpu_train
from benchmarks.gpu import variants as gpu_variants
from benchmarks.gpu import warm as gpu_warm
from benchmarks.gpu.one_update import OneUpdate
from tests.support.builders import ROOT, TINY, tiny_spec
from uvb.accelerate.compiled import CompiledObjective
from uvb.accelerate.gradients import clip
from uvb.data import ImageSet
from uvb.errors import UserError
from uvb.exact.empirical_bayes import posterior_mean
from uvb.models import get_model
from uvb.noise import normal
from uvb.plan import Plan
from uvb.spec import Widths
from uvb.training.loop import fit, prepare
from uvb.training.objectives import build_objective
from uvb.training.state import TrainState

SHAPE = (1, 9, 11)
WIDTHS = Widths(conv=(3, 4, 5), hidden=6, latent=5, decoder=7)


def a_batch(noise_dim: int, count: int = 6) -> tuple[torch.Tensor, ...]:
    x = torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(1))
    return x, normal(tuple(x.shape), 0, "n"), normal((count, noise_dim), 0, "e"), torch.full((count,), 1 / count)


def row(name: str, value: float = 1.0, machine: str = "m, torch 1") -> measure.Row:
    return measure.figure(name, value, "s") | {"machine": machine}


@pytest.mark.parametrize("name", ["uvb", "deen"])
def test_jax_takes_the_same_step(name):
    """Loss and every gradient of the JAX reference are torch's; σ is not 1 and the image not square, so no factor hides."""
    jax_step = pytest.importorskip("benchmarks.jax_step", reason="JAX is not installed", exc_type=ImportError)
    model = get_model(name).build(SHAPE, WIDTHS, "silu", 0.7)
    x, noise, eps, weight = a_batch(model.noise_dim)
    loss = build_objective("denoise", model)(x, noise, eps, weight)
    loss.backward()
    value, gradients = jax_step.loss_and_gradients(model, name, x, noise, eps)
    assert value == pytest.approx(loss.item(), rel=1e-5)
    for key, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(torch.tensor(gradients[key]), parameter.grad, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["uvb", "deen"])
def test_stacked_models_have_the_gradients_of_each(name):
    models = stacked.objectives(name, SHAPE, WIDTHS, "cpu", sigmas=(0.3, 0.8, 1.0))
    for objective in models:
        objective.double()
    plan = Plan(precision="fp64")
    batch = tuple(t.double() for t in a_batch(models[0].model.noise_dim))
    at_once, parameters = stacked.stacked(models, plan)
    losses = at_once(*batch)
    torch.testing.assert_close(losses, stacked.in_turn(models, plan)(*batch))
    for k, objective in enumerate(models):
        for key, parameter in objective.named_parameters():
            expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            torch.testing.assert_close(parameters[key].grad[k], expected)


def test_the_first_written_estimator_is_the_exact_one():
    """So the seconds compare two ways to one result."""
    train = torch.randint(0, 256, (50, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    y = torch.rand(7, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(exact.first_written(y, train), posterior_mean(y, train, exact.SIGMA), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["uvb", "deen"])
def test_the_first_written_step_descends_like_ours(name):
    """Its loss is the objective's; and it does change the weights."""
    model = get_model(name).build(SHAPE, WIDTHS, "silu", 0.7)
    before = [p.detach().clone() for p in model.parameters()]
    expected = build_objective("denoise", model)(*gpu_variants.batch_for(model, SHAPE, "cpu", 6))
    loss = gpu_variants.first_written(model, SHAPE, "cpu", 6)()
    torch.testing.assert_close(loss, expected)
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("longest", [1e9, 0.1])
def test_one_update_is_clipping_adam_and_average(longest):
    model = get_model("deen").build(SHAPE, Widths(conv=(3, 4), hidden=6), "silu", 1.0)
    trained = list(model.parameters())
    average = [p.detach().clone() for p in trained]
    mine, my_average = ([nn.Parameter(p.detach().clone()) for p in trained], [a.clone() for a in average])
    adam = torch.optim.Adam(trained, lr=0.01, fused=True)
    update = OneUpdate(mine, my_average, 0.01, longest, through=lambda function: function)
    for at in range(3):
        for p, m in zip(trained, mine, strict=True):
            p.grad = normal(tuple(p.shape), at, "gradient")
            m.grad = p.grad.clone()
        clip(trained, longest)
        adam.step()
        update()
        with torch.no_grad():
            torch._foreach_lerp_(average, trained, 1e-3)
    torch.testing.assert_close(mine, trained, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(my_average, average, rtol=1e-5, atol=1e-7)


def test_forward_flops_by_hand():
    """DEEN on 9×11 images: three convolutions, two linear layers, two operations a multiplication."""
    widths = Widths(conv=(3, 4, 5), hidden=6)
    positions = (7 * 9, 5 * 7, 3 * 5)
    by_hand = 2 * (9 * (1 * 3 * positions[0] + 3 * 4 * positions[1] + 4 * 5 * positions[2]) + 5 * positions[2] * 6 + 6)
    assert gpu_variants.forward_flops("deen", SHAPE, widths) == by_hand


def test_gpu_checks_pass_on_this_machine(digits):
    found = dict(gpu_checks.run_checks(digits, "cpu", widths=TINY, batch=32, compile=False))
    assert {name: check for name, check in found.items() if not check["ok"]} == {}
    assert 0 < found["gradients/uvb"]["fp32"] < 1e-5


def test_gpu_checks_notice_a_wrong_gradient(digits, monkeypatch):
    """A gradient two percent off is caught in fp32, and NaN never passes."""
    real = gpu_checks.flat_gradient
    for wrong in (1.02, float("nan")):

        def bent(spec, plan, arguments, weights, wrong=wrong):
            loss, gradient = real(spec, plan, arguments, weights)
            return loss, gradient * (wrong if plan.precision == "fp32" else 1)

        monkeypatch.setattr(gpu_checks, "flat_gradient", bent)
        others = {"keyed-noise", "gradients/uvb", "resume/uvb", "resume/deen"}
        found = dict(gpu_checks.run_checks(digits, "cpu", widths=TINY, batch=32, compile=False, have=others))
        assert list(found) == ["gradients/deen"]
        assert not found["gradients/deen"]["ok"]


def test_settings_do_not_outlive_a_check_that_raises(digits, monkeypatch):
    """Else every later figure would be of other arithmetic. And nothing is begun without time left."""

    def raises(*_, **__):
        raise RuntimeError("no")

    monkeypatch.setattr(gpu_checks, "flat_gradient", raises)
    before = torch.backends.cudnn.allow_tf32
    found = dict(gpu_checks.run_checks(digits, "cpu", widths=TINY, batch=32, have={"resume/uvb", "resume/deen", "keyed-noise"}))
    assert {name: check["error"] for name, check in found.items()} == dict.fromkeys(found, "RuntimeError: no")
    assert set(found) == {f"{kind}/{model}" for kind in ("gradients", "compiled", "compiled-fp32") for model in ("uvb", "deen")}
    assert torch.backends.cudnn.allow_tf32 is before
    assert list(gpu_checks.run_checks(digits, "cpu", widths=TINY, left=lambda: -1.0)) == []


def lost(device):
    raise measure.DeviceLost("an illegal memory access was encountered")


def test_a_lost_device_is_blamed_on_what_lost_it_alone(digits, tmp_path, monkeypatch):
    """What was being done is recorded, so that the next call goes past it; nothing is said of what would have come after."""
    for module in (gpu_checks, gpu_train):
        monkeypatch.setattr(module, "require_alive", lost)
    several = gpu_checks.run_checks(digits, "cpu", widths=TINY, batch=32, compile=False, have={"keyed-noise"})
    assert next(several)[0] == "gradients/uvb"
    with pytest.raises(measure.DeviceLost):
        next(several)
    spec = tiny_spec(digits)
    folder = tmp_path / "results" / spec.spec_id
    folder.mkdir(parents=True)
    gpu_train.uvb.save_model(gpu_train.uvb.build_model(spec), spec, tmp_path / "models" / spec.spec_id)
    monkeypatch.setattr(gpu_train, "experiment_names", lambda default_only: ["losses", "internals"])
    with pytest.raises(measure.DeviceLost):
        gpu_train.experiments(spec, Plan(), digits, tmp_path, gpu_train.Budget(10), lambda text: None)
    assert {path.name for path in folder.glob("*.json")} == {"losses.json"}
    assert not list(folder.glob("*.started"))


def test_a_way_of_writing_the_step_that_fails_is_told_once(monkeypatch):
    """By name, so that the next call does not try it again; and what might not end in time is not begun."""
    names = ["graph-compile-bf16", "jax-bf16"]
    for name in ("variant", "jax_apart"):
        monkeypatch.setattr(gpu_variants, name, lambda *_: 1 / 0)
    told: dict[str, str] = {}
    peak = {"bf16": 1.0, "fp32": 1.0, "bytes": 1.0}
    options = {"widths": TINY, "batch": 2, "failed": told.__setitem__}
    rows = list(gpu_variants.step_rows("deen", "mnist", peak, "cpu", names, **options))
    assert [r["name"] for r in rows] == ["step/deen/mnist/cpu-eager-fp32"]
    assert set(told) == {"step/deen/mnist/cpu-graph-compile-bf16", "step/deen/mnist/cpu-jax-bf16"}
    assert all("ZeroDivisionError" in why for why in told.values())
    assert list(gpu_variants.step_rows("deen", "mnist", peak, "cpu", names, have=set(told), **options)) == []
    told.clear()
    between = (gpu_variants.VARIANT_SECONDS + gpu_variants.JAX_SECONDS) / 2
    list(gpu_variants.step_rows("deen", "mnist", peak, "cpu", names, left=lambda: between, **options))
    assert set(told) == {"step/deen/mnist/cpu-graph-compile-bf16"}
    assert list(gpu_variants.step_rows("deen", "mnist", peak, "cpu", names, left=lambda: 1.0, **options)) == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")  # only there is a graph captured
def test_a_cuda_graph_computes_the_same_gradients(digits):
    assert gpu_checks.graphed(gpu_checks.check_spec(digits, "uvb", TINY, 32), digits)["ok"]


def test_a_plan_with_a_graph_needs_a_gpu():
    with pytest.raises(UserError, match="CUDA graph"):
        Plan(graph=True).require_honourable()


def test_a_training_cut_short_goes_on_to_the_same_weights(digits, tmp_path, monkeypatch):
    """No time: a state on the disk and no result. Time: weights, curves, experiments; to the bit those of one go."""
    monkeypatch.setattr(gpu_train, "experiment_names", lambda default_only: ["losses", "denoise_rows", "internals"])
    spec, plan, silent = tiny_spec(digits), Plan(), lambda text: None
    places = tmp_path / "cut", tmp_path / "whole"
    assert not gpu_train.run_training(spec, plan, digits, places[0], gpu_train.Budget(0), silent)
    folder = places[0] / "results" / spec.spec_id
    assert not (folder / "done.json").exists()
    assert (places[0] / "state" / spec.spec_id / "now" / "state.json").exists()
    for place in places:
        assert gpu_train.run_training(spec, plan, digits, place, gpu_train.Budget(10), silent)
    cut, whole = (gpu_train.uvb.load(place / "models" / spec.spec_id) for place in places)
    for key, value in whole.state_dict().items():
        assert torch.equal(cut.state_dict()[key], value), key
    assert [r["epoch"] for r in json.loads((folder / "curves.json").read_text())["rows"]] == [0, 1]
    losses = json.loads((folder / "losses.json").read_text())
    assert {r["split"] for r in losses["rows"]} == {"train", "test"}
    assert (folder / "denoise_rows.xhat.png").stat().st_size > 100
    assert not list(folder.glob("*.started"))


def test_losses_come_first_and_the_rest_later(digits, tmp_path, monkeypatch):
    """The headline's trainings do not wait for one another's experiments."""
    monkeypatch.setattr(gpu_train, "experiment_names", lambda default_only: ["internals", "losses"])
    spec, plan, lines = tiny_spec(digits), Plan(), []
    folder = tmp_path / "results" / spec.spec_id
    found = []
    for only in ("losses", None):
        assert gpu_train.run_training(spec, plan, digits, tmp_path, gpu_train.Budget(10), lines.append, only=only)
        found.append({name: (folder / f"{name}.json").exists() for name in ("losses", "internals", "done")})
    assert found == [{"losses": True, "internals": False, "done": False}, dict.fromkeys(found[0], True)]
    assert sum("epoch 2/2" in line for line in lines) == 1  # trained once
    (test,) = [r for r in json.loads((folder / "losses.json").read_text())["rows"] if r["split"] == "test"][:1]
    assert any(f"energy, test: {test['loss']:.3f}" in line for line in lines)


def test_a_compilation_that_fails_or_takes_too_long_is_told():
    """And the others go on: each is a process of its own."""
    small = json.dumps(gpu_run.dataclasses.asdict(TINY))
    failed = list(gpu_warm.warm_all(60, small, jobs=(("nothing", "mnist", 2),)))
    late = list(gpu_warm.warm_all(0.0, small, jobs=(("uvb", "mnist", 2),)))
    assert [("nothing" in job["error"], job["job"][0]) for job in failed] == [(True, "nothing")]
    assert [job["error"] for job in late] == ["not done after 0 s"]


def test_a_state_that_was_being_replaced_is_found(digits, tmp_path):
    """A kill between the old state's end and the new one's rename leaves the new one alone; one half-written is passed over."""
    spec, plan = tiny_spec(digits), Plan()
    state = TrainState.fresh(spec, plan)
    next(fit(spec, plan, state, digits, pulse_seconds=0.0))
    gpu_train.save_state(state, tmp_path, plan)
    (tmp_path / "now").rename(tmp_path / "next")
    assert gpu_train.newest_state(tmp_path, spec, plan).step == state.step > 0
    (tmp_path / "next" / "state.json").unlink()
    assert gpu_train.newest_state(tmp_path, spec, plan).step == 0


def test_mixing_is_told_where_arviz_is(digits, tmp_path, monkeypatch):
    """Collected without it (nulls), filled in from the arrays: what a machine that has it would have said."""
    spec, plan = tiny_spec(digits), Plan()
    monkeypatch.setattr(gpu_train, "experiment_names", lambda default_only: ["walk_jump"])
    model = get_model("uvb").build(spec.data.shape, spec.widths, "silu", 1.0)
    gpu_train.uvb.save_model(model, spec, tmp_path / "models" / spec.spec_id)
    folder = tmp_path / "results" / spec.spec_id
    folder.mkdir(parents=True)
    assert gpu_train.experiments(spec, plan, digits, tmp_path, gpu_train.Budget(10), lambda text: None, scale=0.2)
    path = folder / "walk_jump.json"
    blob = json.loads(path.read_text())
    bare = json.loads(path.read_text())
    for figures in (*bare["variants"].values(), bare["energy"]):
        figures.update(dict.fromkeys(("iat", "ess_per_step", "split_rhat")))
    path.write_text(json.dumps(bare))
    gpu_collect.fill_mixing(folder)
    filled = json.loads(path.read_text())
    for kind in ("jump", "second_jump"):
        for name in ("iat", "ess_per_step", "split_rhat"):
            assert filled["variants"][kind][name] == pytest.approx(blob["variants"][kind][name], rel=1e-3)
        assert filled["variants"][kind]["transition"] == blob["variants"][kind]["transition"]
    assert filled["energy"] == pytest.approx(blob["energy"], rel=1e-3)


def test_rows_of_two_gpus_stand_beside_each_other_and_checks_add_up(tmp_path):
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text(json.dumps([row("a", 1.0, "one"), row("a", 2.0, "two"), row("b", 3.0, "one")]))
    new.write_text(json.dumps([row("a", 9.0, "one")]))
    values = {(r["machine"], r["name"]): r["value"] for r in gpu_collect.merged(new, old)}
    assert values == {("one", "a"): 9.0, ("two", "a"): 2.0, ("one", "b"): 3.0}
    old.write_text(json.dumps({"machine": "one", "checks": {"a": 1, "b": 1}}))
    new.write_text(json.dumps({"machine": "two", "checks": {"b": 2}}))
    assert gpu_collect.merged(new, old) == {"machine": "two", "checks": {"a": 1, "b": 2}}


def test_an_experiment_that_fails_or_never_ends_costs_the_others_nothing(digits, tmp_path, monkeypatch):
    spec, plan = tiny_spec(digits), Plan()
    folder = tmp_path / "results" / spec.spec_id
    folder.mkdir(parents=True)
    (folder / "losses.started").touch()  # a call was killed while it ran
    model = get_model("uvb").build(spec.data.shape, spec.widths, "silu", 1.0)
    gpu_train.uvb.save_model(model, spec, tmp_path / "models" / spec.spec_id)
    real = gpu_train.get_experiment("internals")
    broken = gpu_train.dataclasses.replace(real, run=lambda *a: 1 / 0)
    monkeypatch.setattr(gpu_train, "experiment_names", lambda default_only: ["losses", "internals", "denoise_rows"])
    find = gpu_train.get_experiment
    monkeypatch.setattr(gpu_train, "get_experiment", lambda name: broken if name == "internals" else find(name))
    assert gpu_train.experiments(spec, plan, digits, tmp_path, gpu_train.Budget(10), lambda text: None)
    assert "a call ended" in json.loads((folder / "losses.json").read_text())["error"]
    assert "ZeroDivisionError" in json.loads((folder / "internals.json").read_text())["error"]
    assert "error" not in json.loads((folder / "denoise_rows.json").read_text())


def test_results_travel_as_an_archive_and_finished_ones_stay(tmp_path):
    place, out, tree = tmp_path / "place", tmp_path / "out", tmp_path / "tree"
    for name, text in (("aaa", "new"), ("bbb", "new")):
        (place / "results" / name).mkdir(parents=True)
        (place / "results" / name / "curves.json").write_text(text)
    (place / "results" / "aaa" / "done.json").write_text("{}")
    (place / "results" / "bench.json").write_text("[]")
    (tree / "bbb").mkdir(parents=True)
    (tree / "bbb" / "curves.json").write_text("old, unfinished")
    gpu_run.bundle(place, out, tree, 0.0, "note")
    assert json.loads((out / "summary.json").read_text())["finished"] == {"aaa": True, "bbb": False}
    assert set(gpu_collect.collect(out, tree)) == {"aaa", "bbb (unfinished)", "bench.json"}
    assert (tree / "bbb" / "curves.json").read_text() == "new"
    (place / "results" / "aaa" / "curves.json").write_text("newer")
    gpu_run.bundle(place, tmp_path / "again", tmp_path / "empty", 0.0, "note")
    gpu_collect.collect(tmp_path / "again", tree)
    assert (tree / "aaa" / "curves.json").read_text() == "new"


@pytest.mark.parametrize(
    ("graphed", "compiled", "best"),
    [(True, True, "graph-compile-bf16"), (False, True, "compile-bf16"), (True, False, "eager-bf16")],
)
def test_the_plan_is_the_fastest_that_passed_its_checks(tmp_path, graphed, compiled, best):
    rows = [
        row(f"step/uvb/mnist/cuda-{n}", v, measure.machine())
        for n, v in (("graph-compile-bf16", 1.0), ("compile-bf16", 2.0), ("eager-bf16", 5.0))
    ]
    rows.append(row("step/uvb/mnist/cuda-eager-bf16", 0.001, "another GPU, torch 1"))
    (tmp_path / "bench.json").write_text(json.dumps(rows))
    here = {"machine": measure.machine()}
    checks = {"graphed/uvb": {"ok": graphed} | here, "compiled/uvb": {"ok": compiled} | here}
    (tmp_path / "checks.json").write_text(json.dumps({"checks": checks}))
    plan = gpu_run.plan_for("vae", [tmp_path], "cuda")
    assert (plan.compile, plan.graph, plan.precision) == ("compile" in best, "graph" in best, "bf16")


def test_what_another_machine_checked_says_nothing_of_this_one(tmp_path):
    checks = {name: {"ok": True, "machine": "another GPU, torch 1"} for name in ("graphed/uvb", "compiled/uvb")}
    (tmp_path / "checks.json").write_text(json.dumps({"checks": checks}))
    for places in ([tmp_path], []):
        assert gpu_run.plan_for("uvb", places, "cuda") == Plan(device="cuda", precision="bf16", compile=True)


def test_the_average_carries_no_history(digits):
    """An EMA outside no_grad would keep every step's graph alive, and memory would grow for as long as a training runs."""
    spec, plan = tiny_spec(digits), Plan()
    state = TrainState.fresh(spec, plan)
    for _ in fit(spec, plan, state, digits):
        pass
    assert all(p.is_leaf and p.grad_fn is None for p in state.averaged.parameters())
    assert not torch.equal(*(next(m.parameters()) for m in (state.averaged, state.model)))


@pytest.mark.slow
def test_a_process_may_compile_more_networks_than_dynamo_likes(digits, monkeypatch, recwarn):
    """Dynamo refuses the ninth compilation of a function; a worker trains a whole group of models in turn."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    for hidden in range(6, 17):
        objective = build_objective("denoise", get_model("deen").build(SHAPE, Widths(conv=(3,), hidden=hidden), "silu", 1.0))
        compiled = prepare(objective, Plan(compile=True), (4, *SHAPE))
        assert isinstance(compiled, CompiledObjective)
    assert not [w for w in recwarn if "torch.compile failed" in str(w.message)]


def test_packed_images_come_back_whole(tmp_path):
    pixels = torch.randint(0, 256, (20, 1, 5, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = ImageSet("some", pixels[:15], pixels[15:])
    gpu_pack.pack(images, tmp_path / "packed")
    assert gpu_pack.unpack(tmp_path / "packed", tmp_path / "scratch")["some"].checksum == images.checksum


def test_every_training_has_a_result_of_its_own(digits):
    specs = gpu_train.in_order_of_value({"mnist": digits, "cifar10": digits})
    first = [f"{model} fast, learning_rate=0.0005 1" for model in ("uvb", "deen", "vae")]
    first.insert(1, "uvb muon, learning_rate=0.002 1")
    assert [gpu_run.key_of(s).split(" ", 1)[1] for s in specs[:4]] == first
    assert gpu_run.key_of(specs[-1]).endswith("deen paper 1")
    ids = [s.spec_id for s in gpu_train.in_order_of_value({"mnist": digits})]
    assert len(set(ids)) == len(ids) == 27


def test_a_new_run_replaces_its_rows_and_keeps_the_others(tmp_path):
    bench.write([row("a/x", 1.0), row("b/y", 2.0)], tmp_path)
    bench.write([row("a/x", 3.0), row("c", 1.0, machine="other gpu, torch 1")], tmp_path)
    values = {r["name"]: r["value"] for r in json.loads((tmp_path / "m.json").read_text())}
    assert values == {"a/x": 3.0, "b/y": 2.0}
    assert "| a/x | 3 s |" in (tmp_path / "m.md").read_text()
    assert (tmp_path / "other-gpu.json").exists()


def test_a_study_is_a_row_of_its_wall_time_and_its_parts(tmp_path):
    (tmp_path / "digits").mkdir()
    timings = {"stages": [{"name": "training", "seconds": 40.0}], "total_seconds": 60.0}
    (tmp_path / "digits" / "timings.json").write_text(json.dumps(timings))
    (tmp_path / "digits" / "study.json").write_text(json.dumps({"provenance": {"git": "abc+changes", "time": "then"}}))
    done = tmp_path / "digits" / "models" / "a" / "done.json"
    done.parent.mkdir(parents=True)
    done.write_text(json.dumps({"seconds": 30.0}))
    rows = bench.study_rows([tmp_path / "digits", tmp_path / "absent"])
    values = {"study/digits/wall": 60.0, "study/digits/training": 40.0, "study/digits/training, steps alone": 30.0}
    assert {r["name"]: r["value"] for r in rows} == values
    assert {(r["commit"], r["when"]) for r in rows} == {("abc+", "then")}


def test_times_are_medians_and_ratios_are_of_medians():
    found = measure.row("x", [2.0, 1.0, 9.0], "slow", [4.0, 4.0, 100.0], unit="images/s", work=10)
    assert (found["value"], found["ratio"], found["unit"]) == (5.0, 2.0, "images/s")
    assert set(found) == {"name", "value", "unit", "reference", "ratio", "spread", "machine", "when", "commit"}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_benchmark_of_steps_runs(tmp_path):
    """`bench.py --quick`: each side in processes of its own, and rows with ratios of what was measured in this run."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.bench",
        "--quick",
        "--only",
        "step",
        "workers",
        "--study",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {
        row["name"]: row for path in (ROOT / "build" / "bench-quick").glob("*.json") for row in json.loads(path.read_text())
    }
    fast = next(row for name, row in rows.items() if name.startswith("step/uvb/mnist/cpu-") and row["ratio"])
    slow = rows["step/uvb/mnist/cpu-eager-fp32"]
    assert fast["ratio"] == pytest.approx(slow["value"] / fast["value"])
