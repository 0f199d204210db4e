"""examples/uvb_completion.bash completes commands and options, in a real bash."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.builders import ROOT

ASK = """
uvb() {{ {python} -m pipelines.console "$@"; }}
source {script}
COMP_WORDS=({words}) COMP_CWORD={last}
_uvb
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["uvb", "s"], ["study", "sweep", "sample"]),
        (["uvb", "study", "--ep"], ["--epochs"]),
        (["uvb", "sample", "--tr"], ["--tracking-uri"]),
        (["uvb", "nothing", "--x"], []),
    ],
)
def test_completion_offers_commands_and_options(words: list[str], completed: list[str], tmp_path: Path) -> None:
    script = ASK.format(
        python=sys.executable, script=ROOT / "examples" / "uvb_completion.bash", words=" ".join(words), last=len(words) - 1
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert sorted(done.stdout.split()) == sorted(completed), done.stderr
