"""Write the tables of the results pages from the committed results: `python docs/tables.py`.

A page marks the place of a table with ``<!-- table: NAME ARGUMENTS -->`` and ``<!-- end -->``. This script replaces the table
between the marks. Its numbers are rounded from the Parquet and JSON files in `results/`. A test checks that pages are current.
"""

import json
import math
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from scipy.stats import t as student

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.cpu.answers import interval_of  # noqa: E402
from benchmarks.measure import short  # noqa: E402
from uvb import paper  # noqa: E402

STUDIES = ROOT / "results" / "studies"
MARK = re.compile(r"(<!-- table: ([a-z-]+)(.*?) -->\n).*?(<!-- end -->)", re.DOTALL)


def pages() -> list[Path]:
    """Every page that may hold tables."""
    return sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "results").rglob("README.md")])


def written(path: Path) -> str:
    """The text of the page, with new tables."""

    def table(found: re.Match[str]) -> str:
        lines = TABLES[found[2]](*found[3].split())
        return f"{found[1]}\n" + "\n".join(lines) + f"\n\n{found[4]}"

    return MARK.sub(table, path.read_text())


def markdown(head: list[str], rows: list[list[str]], left: int = 1) -> list[str]:
    """A table whose first `left` columns are aligned left and the others right."""
    line = ["---"] * left + ["---:"] * (len(head) - left)
    return [f"| {' | '.join(row)} |" for row in (head, line, *rows)]


def number(value: float, error: float | None = None, sign: bool = False) -> str:
    """A value rounded to the second significant digit of its error, followed by the error.

    Without an error the value has three decimals. Without a value the text is empty.
    """
    if value is None or math.isnan(value):
        return ""
    if error is None or math.isnan(error):
        return f"{value:{'+' if sign else ''}.3f}".replace("-", "−")
    digits = max(0, 1 - math.floor(math.log10(error))) if error else 3
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "−") + f" ± {error:.{digits}f}"


def interval(row: Any) -> str:
    """A paired difference with its 95 % interval."""
    digits = min(3, max(0, 1 - math.floor(math.log10(row.stderr))))
    numbers = (f"{value:+.{digits}f}".replace("-", "−") for value in (row.difference, row.low, row.high))
    return "{} [{}, {}]".format(*numbers)


def read(study: str | Path, table: str) -> pd.DataFrame:
    return pd.read_parquet(STUDIES / study / "tables" / f"{table}.parquet")


def energies(study: str | Path) -> pd.DataFrame:
    """The losses of x̂(y) by Eq. 3 ("energy") or as a network's output ("direct"). Losses of decoders are left out."""
    rows = read(study, "losses")
    return rows[rows.estimator.isin(["energy", "direct"])]


def pairs(study: str, split: str) -> pd.DataFrame:
    """The paired differences UVB − DEEN on a split."""
    rows = read(study, "pairs")
    return rows[(rows.split == split) & (rows["first"] == "uvb") & (rows.second == "deen")]


def losses(study: str, split: str) -> list[str]:
    """One row for each σ, with one training of each model.

    A row has the losses of UVB and DEEN, their paired difference, the paper's difference, and the exact reference: the loss of
    the training set's posterior mean. On training images it is called the floor, because no model can do better there.
    """
    found, paired, exact = energies(study), pairs(study, split), read(study, "references")
    rows = []
    for sigma in sorted(found.sigma.unique()):
        here = found[(found.sigma == sigma) & (found.split == split)].set_index("model")
        (pair,) = paired[paired.sigma == sigma].itertuples()
        (known,) = exact[exact.sigma == sigma].itertuples()
        of_paper = [paper.loss(pair.dataset, model, sigma, split) for model in ("uvb", "deen")]
        gap = "" if None in of_paper else f"{of_paper[0] - of_paper[1]:+.2f}".replace("-", "−")
        bound = (known.nonparametric, known.nonparametric_stderr) if split == "test" else (known.floor, known.floor_stderr)
        cells = [number(here.loss[model], here.stderr[model]) for model in ("uvb", "deen")]
        rows.append([f"{sigma:g}", *cells, interval(pair), gap, number(*bound)])
    last = "exact posterior mean of the training set" if split == "test" else "floor"
    head = ["σ", f"UVB, {split}", f"DEEN, {split}", "UVB − DEEN, 95 % over images", "paper's difference, 400 epochs", last]
    if not any(row[4] for row in rows):  # the paper has none of these losses
        for row in (head, *rows):
            del row[4]
    return markdown(head, rows)


def seeds(study: str) -> list[str]:
    """The difference UVB − DEEN of test losses over several trainings, with its mean and its 95 % interval."""
    rows = []
    for sigma, group in pairs(study, "test").sort_values(["sigma", "seed"]).groupby("sigma"):
        n, differences, mean = len(group), group.difference, group.difference.mean()
        over_trainings = differences.std() / math.sqrt(n)
        error = math.hypot(over_trainings, group.stderr.mean())
        half = student.ppf(0.975, n - 1) * error
        each = ", ".join(number(difference, sign=True) for difference in differences)
        ends = ", ".join(number(end, sign=True) for end in (mean - half, mean + half))
        deviations = [number(differences.std()), number(group.stderr.mean())]
        rows.append([f"{sigma:g}", each, number(mean, sign=True), f"[{ends}]", *deviations])
    head = [
        "σ",
        "UVB − DEEN, each training",
        "mean",
        "95 % over trainings and images",
        "s.d. over trainings",
        "error over images",
    ]
    return markdown(head, rows)


def best(study: str) -> list[str]:
    """UVB − DEEN over σ, each at its best recipe and both at `fast`, as `benchmarks.cpu.recipes` measured it."""
    compared = json.loads((STUDIES / study / "comparison.json").read_text())["compared"]
    found = {(row["recipes"], row["sigma"]): row for row in compared}
    rows = []
    for sigma in sorted({sigma for _, sigma in found}):
        own = found["best against best", sigma]
        losses = [f"{own[model]['loss']:.3f}" for model in ("uvb", "deen")]
        both = (found[recipes, sigma] for recipes in ("best against best", "all at fast"))
        rows.append([f"{sigma:g}", *losses, *(interval_of(row["uvb - deen"], row["trainings"]) for row in both)])
    return markdown(["σ", "UVB", "DEEN", "UVB − DEEN, each at its best", "UVB − DEEN, both at `fast`"], rows)


def sigma_one() -> list[str]:
    """The paper's networks on MNIST at σ = 1: one row for each training of any study."""
    rows = []
    for folder in sorted(STUDIES.glob("mnist-*")):
        found = energies(folder)
        inside = read(folder, "internals")
        found = found[(found.sigma == 1.0) & (found.parameters > 2e7)]  # the paper's networks have 26 million
        for (epochs, batch, model, seed), group in found.groupby(["epochs", "batch_size", "model", "seed"]):
            test, train = (group[group.split == split].iloc[0] for split in ("test", "train"))
            kl = inside[(inside.spec_id == test.spec_id) & (inside.quantity == "kl_noisy")].value
            link = f"[{folder.name}](../results/studies/{folder.name}/README.md)"
            cells = [model.upper(), number(test.loss, test.stderr), number(train.loss, train.stderr)]
            rows.append(
                (model, epochs, [*cells, f"{kl.iloc[0]:.0f}" if len(kl) else "", str(epochs), str(batch), str(seed), link])
            )
    for _, recipe, c in gpu_models():
        at = f"[h200](../results/h200/README.md), rate {recipe['learning_rate']:g}"
        epochs, batch = recipe["epochs"], str(recipe["batch_size"])
        rows.append(("uvb", epochs, ["UVB", c["test"], c["train"], c["kl"], str(epochs), batch, "0", at]))
    order = {"uvb": 0, "deen": 1, "vae": 2}
    rows.sort(key=lambda row: (order.get(row[0], 9), row[1], row[2][-1], row[2][1]))  # model, epochs, study, test loss
    return markdown(["model", "test", "train", "KL, nats", "epochs", "batch", "seed", "study"], [row[2] for row in rows])


def gpu_models() -> Iterator[tuple[str, dict[str, Any], dict[str, str]]]:
    """Yield spec_id, recipe and cells (test, train, KL, seconds) of each training in results/h200."""
    root = ROOT / "results" / "h200"
    for path in sorted(root.glob("models/*/spec.json")):
        name = path.parent.name
        found = json.loads((root / "tasks" / "losses" / name / "result.json").read_text())["rows"]
        losses = {row["split"]: number(row["loss"], row["stderr"]) for row in found if row["estimator"] == "energy"}
        inside = root / "tasks" / "internals" / name / "result.json"
        rows = json.loads(inside.read_text())["rows"] if inside.exists() else []
        kl = "".join(f"{row['value']:.0f}" for row in rows if row["quantity"] == "kl_noisy")
        seconds = json.loads(path.with_name("curves.json").read_text())["seconds"]
        yield name, json.loads(path.read_text())["recipe"], {**losses, "kl": kl, "seconds": f"{seconds:.0f}"}


def gpu_trainings() -> list[str]:
    """One row for each training of UVB on the GPU, in the order of their peak rates."""
    found = sorted(gpu_models(), key=lambda model: model[1]["learning_rate"])
    rows = [[f"`{name}`", f"{r['learning_rate']:g}", c["test"], c["train"], c["kl"], c["seconds"]] for name, r, c in found]
    return markdown(["id", "peak rate", "test", "train", "KL, nats", "seconds of training"], rows)


def origin(folder: str) -> list[str]:
    """Command, machine, commit and time of a study."""
    root = ROOT / "results" / folder
    made, timings = json.loads((root / "study.json").read_text()), json.loads((root / "timings.json").read_text())
    told = made["provenance"]
    stages = {stage["name"]: stage["seconds"] for stage in timings["stages"]}
    parts = ", ".join(f"{name} {stages[name]:.0f} s" for name in ("training", "measurements") if name in stages)
    return [
        f"- Command: `python pipelines/{told['command']}`",
        f"- Machine: {told['cpu']}, torch {told['versions']['torch']}; {told['time']}",
        f"- Commit: `{short(told['git'])}`",
        f"- Time: {timings['total_seconds']:.0f} s in all ({parts})",
    ]


def levels(sigmas: list[float]) -> str:
    """Noise levels as text. If there are eight or more, only the smallest and the largest are named."""
    return ", ".join(f"{s:g}" for s in sigmas) if len(sigmas) < 8 else f"{min(sigmas):g} to {max(sigmas):g}"


def studies(kind: str) -> list[str]:
    """One row for each study below results/<kind>/: what it trained, and how long it took."""
    rows = []
    for path in sorted((ROOT / "results" / kind).glob("*/study.json")):
        made, timings = json.loads(path.read_text()), json.loads(path.with_name("timings.json").read_text())
        config, told = made["config"], made["provenance"]
        epochs = sorted(set(read(path.parent, "losses").epochs))
        name = here = path.parent.name
        # results/README.md shows the table of "studies". A table of another kind is in results/<kind>/README.md, so its links
        # begin there, and its studies have no READMEs.
        if kind == "studies":
            here = f"{kind}/{name}"
            name = f"[{name}]({here}/README.md)"
        data = told["data"]["name"].removesuffix("-validation")
        minutes, commit = f"{timings['total_seconds'] / 60:.0f}", f"`{short(told['git'], 7)}`"
        models = str(len(made["specs"]))
        at = levels(config["sigmas"])
        rows.append([name, data, at, ", ".join(map(str, epochs)), models, minutes, commit, f"[open]({here}/report.html)"])
    return markdown(["study", "data", "σ", "epochs", "models", "minutes", "commit", "report"], rows, left=3)


def search(study: str) -> list[str]:
    """Test losses of a search by recipe and model. A cell is empty where the training was stopped early or never began."""
    found = energies(ROOT / "results" / "recipe-search" / study)
    found = found[found.split == "test"]
    names = found.recipe + ", batch " + found.batch_size.astype(str)
    table = found.assign(name=names).pivot_table(index="name", columns="model", values=["loss", "stderr"], aggfunc="first")
    models = [model for model in ("uvb", "deen") if model in table["loss"]]
    table = table.sort_values(("loss", models[0]))
    rows = [
        [f"`{name}`", *(number(row["loss"][model], row["stderr"][model]) for model in models)] for name, row in table.iterrows()
    ]
    return markdown(["recipe", *(model.upper() for model in models)], rows)


def steps(machine: str) -> list[str]:
    """The training step of a machine: its seconds, its speed-up over the first-written step, and its share of the peak."""
    found = {row["name"]: row for row in json.loads((ROOT / "results" / "speed" / f"{machine}.json").read_text())}
    rows = []
    for name, row in found.items():
        kind, at = name.split("/", 1)
        if kind == "step" and row["ratio"]:
            model, data, way = at.split("/")
            shares = [found.get(f"{share}/{at}") for share in ("peak-share", "roofline-share")]
            percents = ["" if share is None else f"{100 * share['value']:.0f} %" for share in shares]
            seconds = (row["value"] * row["ratio"], row["value"])  # of the first-written step, and of ours
            slow, fast = (f"{1e3 * s:.3g} ms" if s < 0.1 else f"{s:.2f} s" for s in seconds)
            rows.append(
                [f"{model.upper()}, {data}", way, slow, fast, f"{row['ratio']:.1f}", *percents, f"`{short(row['commit'], 7)}`"]
            )
    head = ["step of 128 images", "way", "first written", "ours", "speed-up", "share of peak", "of roofline", "commit"]
    return markdown(head, rows, left=2)


def rates(machine: str, *kinds: str) -> list[str]:
    """The rows of a machine whose names begin with one of `kinds`."""
    found = json.loads((ROOT / "results" / "speed" / f"{machine}.json").read_text())
    rows = []
    for row in found:
        if row["name"].split("/")[0] in kinds:
            size, unit = (row["value"] / 2**20, "MiB") if row["unit"] == "bytes" else (row["value"], row["unit"])
            ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
            rows.append([row["name"], f"{size:.3g} {unit}", ratio, row["reference"] or "", f"`{short(row['commit'], 7)}`"])
    return markdown(["what", "value", "ratio", "to", "commit"], rows)


def chaos() -> list[str]:
    """For each chaos run and kind of disturbance: how often it happened, and how soon the study went on after it."""
    rows, runs = [], json.loads((ROOT / "results" / "chaos" / "runs.json").read_text())
    for run in runs:
        commit = f"`{short(run['commit'], 7)}`"
        equal = re.sub(r" \(\d+ rows\)", "", run["equal_tables"])
        for kind, found in run["kinds"].items():
            worst = "" if found["worst_seconds"] is None else f"{found['worst_seconds']:.1f}"
            seconds = [f"{found['median_seconds']:.1f}", worst]
            rows.append([run["when"], kind, str(found["times"]), *seconds, equal, commit])
        rows += [[run["when"], kind, "skipped", "", "", why, commit] for kind, why in run["skipped"].items()]
    rows.append([f"all {len(runs)} runs", "all", str(sum(run["blows"] for run in runs)), "", "", "", ""])
    head = ["run", "kind", "times", "seconds until the study went on (median)", "worst", "equal tables", "commit"]
    return markdown(head, rows, left=2)


Table = Callable[..., list[str]]
TABLES: dict[str, Table] = {
    "losses": losses, "seeds": seeds, "best": best, "sigma-one": sigma_one, "origin": origin, "gpu-trainings": gpu_trainings,
    "studies": studies, "search": search, "steps": steps, "rates": rates, "chaos": chaos,
}  # fmt: skip


def stale() -> Iterator[Path]:
    """The pages whose tables differ from the results."""
    return (path for path in pages() if written(path) != path.read_text())


def main() -> None:
    for path in list(stale()):
        path.write_text(written(path))
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
