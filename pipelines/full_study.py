"""Run the whole study: `python pipelines/full_study.py --help`.

`ray submit` copies only this file to the cluster, which has the rest of the project installed.
"""

from pipelines.cli import command
from pipelines.study.config import StudyConfig


def full_study(config: StudyConfig) -> int:
    """Run the study. The last line printed is the report's address."""
    print(f"study {config.name} in {config.storage}")
    from pipelines.study.addresses import Addresses

    addresses = Addresses(config)  # asks storage, cluster and database whether they answer, during the next import
    from pipelines.study.session import run_study

    report, failures = run_study(config, addresses=addresses)
    for line in failures:
        print(f"failed: {line}")
    print(report)
    return 1 if failures else 0


def main() -> None:
    """Run what the command line asks for."""
    command(StudyConfig, full_study, resumes=True, presets=True)


if __name__ == "__main__":
    main()
