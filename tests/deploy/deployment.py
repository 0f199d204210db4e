"""What the tests of deploy/ share: the folder's path, and the environment of a user on another machine."""

import os
import sys
from pathlib import Path

from tests.support.builders import ROOT
from tests.support.marked import MARK

DEPLOY = ROOT / "deploy"


def clean_environment(home: Path, mark: str) -> dict[str, str]:
    """This process's environment with another home, and without variables that configure Ray, Slurm or the project.

    The value `mark` lets `tests.support.marked` find the processes that inherit this environment.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "UVB_", "SLURM_"))}
    binaries = f"{Path(sys.executable).parent}:{kept['PATH']}"
    return {**kept, "HOME": str(home), "PATH": binaries, MARK: mark, "OMP_NUM_THREADS": "1", "NO_COLOR": "1",
            "RAY_USAGE_STATS_ENABLED": "0", "MLFLOW_DISABLE_TELEMETRY": "true"}  # fmt: skip
