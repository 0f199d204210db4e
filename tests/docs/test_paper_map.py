"""docs/paper_map.md names files that exist, commands that are accepted, and every numbered part of the paper."""

import re
import shlex

import pytest
import tyro

from pipelines.sample import Sample
from pipelines.study.config import StudyConfig, SweepConfig
from pipelines.study.specs import build_specs, chosen_experiments, sweep_specs
from tests.support.builders import ROOT
from uvb.data import ImageSet

TEXT = (ROOT / "docs" / "paper_map.md").read_text()
COMMANDS = sorted(set(re.findall(r"`python (pipelines/\w+\.py[^`]*)`", TEXT)))
CONFIGS = {"full_study.py": StudyConfig, "sweep.py": SweepConfig, "sample.py": Sample}


def test_paper_map_names_files_that_exist() -> None:
    files = set(re.findall(r"`((?:uvb|pipelines|tune_spaces|tests)/[\w/]+\.py)`", TEXT))
    assert len(files) > 40
    missing = sorted(name for name in files if not (ROOT / name).is_file())
    assert missing == []


@pytest.mark.parametrize("command", COMMANDS)
def test_paper_map_commands_are_accepted(digits: ImageSet, command: str) -> None:
    """The program accepts the command's options. The options choose models to train and experiments to run.

    The test takes digits in place of the command's data set, because digits need no download.
    """
    script, *arguments = shlex.split(command)
    config = tyro.cli(CONFIGS[script.removeprefix("pipelines/")], args=arguments)
    if isinstance(config, SweepConfig):
        assert len(sweep_specs(config, digits)) > 1
    elif isinstance(config, StudyConfig):
        assert build_specs(config, digits)
        assert chosen_experiments(config)


def test_paper_map_has_every_numbered_part_of_the_paper() -> None:
    numbered = {"Table": 5, "Fig.": 4, "Eq.": 21, "Remark": 6, "Question": 2}
    for kind, last in numbered.items():
        found: set[int] = set()
        for plural in re.findall(rf"{re.escape(kind)} ([\d–, ]+)", TEXT):
            for part in re.split(r", ?", plural.strip(" ,")):
                first, _, end = part.partition("–")
                found |= set(range(int(first), int(end or first) + 1))
        assert set(range(1, last + 1)) <= found, (kind, found)
