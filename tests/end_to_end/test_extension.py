"""An energy, a data set and a sweep from outside the package, and `uvb` without Ray and MLflow."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.support.builders import ROOT

# No decorator here: the entry point names the loader itself.
STRIPES = """
import torch

from uvb.data import ImageSet
from uvb.noise import generator


def load(data_dir):
    images = torch.randint(0, 2, (96, 1, 8, 1), generator=generator(0, "stripes")) * 255
    images = images.expand(96, 1, 8, 8).to(torch.uint8)
    return ImageSet("stripes", images[:64], images[64:])
"""

SPACE = """
from tune_spaces import Base, register_space


@register_space("hidden")
def hidden(base: Base):
    \"\"\"The README's energy, narrow and wide.\"\"\"
    from uvb import Widths

    return [base.spec("my_energy", widths=Widths(conv=(), hidden=h)) for h in (8, 16)]
"""


def readme_block(language: str, containing: str) -> str:
    blocks = re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    (found,) = [block for block in blocks if containing in block]
    return found


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an installed project: README's energy and pyproject.toml, a data set and a space.

    The first line of each of README's blocks names its file.
    """
    root = tmp_path_factory.mktemp("outside")
    for language, containing in (("python", "class MyEnergy"), ("toml", "uvb.models")):
        block = readme_block(language, containing)
        where = root / block.splitlines()[0].removeprefix("# ")
        where.parent.mkdir(parents=True, exist_ok=True)
        where.write_text(block)
    project = root / "my_project"
    (project / "my_package" / "stripes.py").write_text(STRIPES)
    (project / "my_package" / "space.py").write_text(SPACE)
    with open(project / "pyproject.toml", "a") as file:
        file.write('\n[project.entry-points."uvb.datasets"]\nstripes = "my_package.stripes:load"\n')
        file.write('[project.entry-points."uvb.spaces"]\nhidden = "my_package.space"\n')
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--target"]
    done = subprocess.run([*command, str(root / "site"), str(project)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return root / "site"


def study(package: Path, folder: Path, command: str, *arguments: str) -> Path:
    """Run a study of the stripes with two Ray workers. Return its folder."""
    tiny = ["--dataset", "stripes", "--sigmas", "1.0", "--epochs", "2", "--num-workers", "2", "--scale", "0.05", "--address",
            "local", "--experiments", "losses", "--storage", str(folder / "out"), "--study", command, "--extra-models",
            "--tracking-uri", f"sqlite:///{folder}/mlflow.db"]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"}
    environment.pop("RAY_ADDRESS", None)
    line = [sys.executable, str(ROOT / "pipelines" / f"{command}.py"), *tiny, *arguments]
    done = subprocess.run(line, env=environment, cwd=folder, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = Path(done.stdout.splitlines()[-1])
    assert report == folder / "out" / command / "report.html"
    assert "my energy" in report.read_text()  # the report writes names with spaces
    return report.parent


@pytest.mark.slow
def test_study_takes_energy_and_data_set_from_outside(package, tmp_path):
    folder = study(package, tmp_path, "full_study", "--models", "my_energy", "direct")
    losses = pd.read_parquet(folder / "tables" / "losses.parquet")
    assert set(losses["dataset"]) == {"stripes"}
    mine = losses[losses["model"] == "my_energy"]
    assert set(zip(mine["split"], mine["estimator"], strict=True)) == {("train", "energy"), ("test", "energy")}
    assert (mine["loss"] > 0).all()
    assert mine["floor"].dropna().lt(mine["loss"].max()).all()  # the study computed exact references of the stripes too
    assert "direct" in set(losses["model"])


@pytest.mark.slow
def test_sweep_takes_space_from_outside(package, tmp_path):
    folder = study(package, tmp_path, "sweep", "--space", "hidden")
    losses = pd.read_parquet(folder / "tables" / "losses.parquet")
    assert set(losses["model"]) == {"my_energy"}
    board = pd.read_parquet(folder / "tables" / "leaderboard.parquet")
    assert sorted(board["parameters"]) == [2 * 64 * h + h + 64 for h in (8, 16)]
    assert set(board["spec_id"]) == set(losses["spec_id"])
    assert set(board["space"]) == {"hidden"}


BLOCKER = """
import sys


class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("ray", "mlflow", "pipelines", "tune_spaces"):
            raise ImportError(f"{name} is blocked")


sys.meta_path.insert(0, Blocked())
"""

TRAINING = """
import uvb
from uvb.data import load_dataset
from uvb.experiments import experiment_names

digits = load_dataset("digits")
data = uvb.DataRef(digits.name, digits.checksum, digits.shape, 40)
widths = uvb.Widths(conv=(3, 4), hidden=6, latent=5, decoder=7)
spec = uvb.RunSpec(data, "uvb", widths, 1.0, "denoise", uvb.Recipe("tiny", epochs=2, batch_size=20))
plan = uvb.resolve_plan(precision="fp32", threads=1)
state = uvb.TrainState.fresh(spec, plan)
print([p.metrics.test_loss > 0 for p in uvb.fit(spec, plan, state, digits) if p.metrics], "losses" in experiment_names())
"""


FILES = {
    "uvb/models/mine.py": """
from uvb.models.base import Energy
from uvb.models.registry import register_model
from uvb.spec import Widths

register_model("mine", widths=Widths(conv=(), hidden=8))(Energy)
""",
    "uvb/data/mine.py": """
from uvb.data.registry import register_dataset

register_dataset("mine")(lambda data_dir: None)
""",
    "uvb/experiments/mine.py": """
from uvb.experiments.registry import register_experiment

register_experiment("mine")(lambda model, spec, context: None)
""",
    "uvb/sampling/mine.py": """
from uvb.sampling.chains import advance
from uvb.sampling.registry import register_sampler


@register_sampler("mine", settings=lambda sigma: {"delta": sigma, "pull": 0.5})
def mine(energy, state, seed, *, delta, pull, batch=None):
    return advance(state, state.y - delta * pull, state.velocity, energy.sigma)
""",
    "tune_spaces/mine.py": """
from tune_spaces.registry import register_space

register_space("mine")(lambda base: [])
""",
}
NAMES = """
from tune_spaces import space_names
from uvb.data import dataset_names
from uvb.experiments import experiment_names
from uvb.models import model_names
from uvb.sampling import sampler_names

lists = (model_names, dataset_names, experiment_names, space_names, sampler_names)
print(["mine" in names() for names in lists], "walk_jump_mine" in experiment_names())

from uvb.sampling.chains import begin
from uvb.models.base import Energy
from uvb.sampling.walk_jump import walk_at, walk_step

class Flat(Energy):
    def energy(self, y, eps):
        return 0 * y.sum((1, 2, 3))

def moved(**more):
    start = begin(2, (1, 2, 2), 0)
    after = walk_step(Flat(2.0), start, walk_at(2.0, sampler="mine", **more), 0)
    return round(float((after.y - start.y).mean()), 6)

print([moved(), moved(delta=1.0)])
"""


def test_registries_find_a_new_file_in_its_folder(tmp_path):
    """The last table of docs/architecture.md is right: an addition is one new file, and no other file lists its name."""
    for package in ("uvb", "tune_spaces"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    for path, text in FILES.items():
        (tmp_path / path).write_text(text)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-c", NAMES]
    done = subprocess.run(line, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout == "[True, True, True, True, True] True\n[-1.0, -0.5]\n", done.stderr


def test_uvb_trains_without_ray_and_mlflow(tmp_path):
    program = BLOCKER + TRAINING
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-c", program]
    done = subprocess.run(line, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout == "[True, True] True\n", done.stderr


def test_uvb_imports_neither_ray_mlflow_nor_pipelines():
    files = sorted((ROOT / "uvb").rglob("*.py"))
    assert len(files) > 30
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:  # level: the dots of a relative import
                names = [node.module or ""]
            wrong = {name.split(".")[0] for name in names} & {"ray", "mlflow", "pipelines", "tune_spaces"}
            assert not wrong, f"{path.relative_to(ROOT)}, line {node.lineno}, imports {wrong}"
