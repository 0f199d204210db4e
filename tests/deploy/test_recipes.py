"""The files, flags and packages that deploy/ and docs/cluster.md name exist."""

import re
import subprocess
import sys
import tomllib

import yaml

from tests.deploy.deployment import DEPLOY
from tests.support.builders import ROOT

DOCS = ROOT / "docs" / "cluster.md"
RECIPES = [DOCS, ROOT / "ray_cluster.yaml", *(path for path in sorted(DEPLOY.iterdir()) if path.is_file())]
# (?<!-t ) leaves out `docker build -t uvb-study:cpu`, which runs no study.
STUDY = re.compile(
    r"(?:pipelines[/.]full_study(?:\.py)?|slurm\.sbatch|(?<!-t )uvb-study:\w+)(?: --(?= ))?"  # a command that runs a study
    r"((?: (?:--?[a-z][a-z0-9-]*|[\w./:-]+))*)"  # its flags and their values
)


def test_docs_link_to_files_that_exist() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", DOCS.read_text())
    for link in (link for link in links if "://" not in link):
        assert (DOCS.parent / link).exists(), link


def test_docs_link_to_headings_that_exist() -> None:
    headings = {re.sub(r"[^a-z -]", "", line[3:].lower()).replace(" ", "-") for line in DOCS.read_text().splitlines()
                if line.startswith("## ")}  # fmt: skip
    assert set(re.findall(r"\]\(#([^)]+)\)", DOCS.read_text())) <= headings


def test_docs_name_each_recipe() -> None:
    for path in DEPLOY.iterdir():
        assert path.suffix == ".dockerignore" or f"deploy/{path.name}" in DOCS.read_text(), path.name


def test_docs_blocks_are_valid_bash() -> None:
    blocks = re.findall(r"```bash\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert len(blocks) >= 8
    for block in blocks:
        subprocess.run(["bash", "-n", "-c", block], check=True)


def test_docs_make_the_token_before_they_start_ray() -> None:
    for section in DOCS.read_text().split("\n## "):
        started = re.search(r"^\s*(\w+=\w+ )?ray (start|up) ", section, re.MULTILINE)
        if started:
            assert 0 <= section.find("ray get-auth-token --generate") < started.start(), section.splitlines()[0]


def test_recipes_use_flags_the_study_has() -> None:
    told = subprocess.run(
        [sys.executable, "pipelines/full_study.py", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    known = set(re.findall(r"--[a-z][a-z-]+", told))
    used = set()
    for path in RECIPES:
        text = path.read_text().replace("\\\n", " ").replace("\n    --", " --")  # each command in one line
        for arguments in STUDY.findall(re.sub(" +", " ", text)):
            used |= set(re.findall(r"(?<= )--[a-z][a-z-]+", arguments))
    assert {"--dataset", "--use-gpu", "--expect-gpus", "--storage"} <= used
    assert used <= known, f"unknown: {used - known}"


def test_recipes_name_no_path_of_one_persons_machine() -> None:
    for path in RECIPES:
        assert not re.search(r"/(work|root|Users)/|/home/(?!ray\b)", path.read_text()), path.name


def test_image_copies_the_packages_and_nothing_else() -> None:
    copied = [line.split()[1:-1] for line in (DEPLOY / "Dockerfile").read_text().splitlines()
              if line.startswith("COPY") and "--from" not in line]  # fmt: skip
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {name.rstrip("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    needed = packages | {"pyproject.toml", "constraints.txt", project["project"]["readme"]}
    assert {name for names in copied for name in names} == needed
    let_in = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    assert {line[1:] for line in let_in if line.startswith("!")} == needed


def test_image_has_the_python_of_the_clusters_images() -> None:
    image = yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())["docker"]["image"]
    (version,) = re.findall(r"^ARG PYTHON=(.+)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    assert f"-py{version.replace('.', '')}-" in image
