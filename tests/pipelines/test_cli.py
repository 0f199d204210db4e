"""Commands start quickly and end in one line, on any terminal, and print no secret."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pipelines import console
from pipelines.cli import REFUSALS, refusals_of_the_system
from pipelines.errors import CommandFailed, last_line, log_error
from pipelines.files.store import Store
from tests.support.builders import ROOT
from tune_spaces import space_names
from uvb.errors import UserError

COMMANDS = ("full_study", "sweep", "sample", "denoise", "restore", "report", "export", "keep")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
HEAVY = ("torch", "ray", "mlflow", "pandas", "numpy", "matplotlib")


def python(code: str, folder: Path, *arguments: str, **more: object) -> "subprocess.CompletedProcess[bytes]":
    """Run `code` in a new process."""
    line = [sys.executable, "-c", code, *arguments]
    options: dict[str, Any] = {"env": ENVIRONMENT, **more}
    return subprocess.run(line, cwd=folder, capture_output=True, timeout=120, check=False, **options)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_imports_no_slow_package(command: str, tmp_path: Path) -> None:
    code = f"""
import runpy, sys
sys.argv = ["{command}.py", "--help"]
try:
    runpy.run_module("pipelines.{command}", run_name="__main__")
finally:
    print("heavy:", *[name for name in {HEAVY} if name in sys.modules])
"""
    done = python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().endswith("heavy:\n")


def test_help_takes_less_than_a_second_of_cpu(tmp_path: Path) -> None:
    code = """
import os, subprocess, sys
subprocess.run([sys.executable, sys.argv[1], "--help"], check=True, stdout=subprocess.DEVNULL)
times = os.times()
print(times.children_user + times.children_system)
"""
    seconds = min(float(python(code, tmp_path, str(ROOT / "pipelines" / "full_study.py")).stdout) for _ in range(3))
    assert seconds < 1.0


@pytest.mark.parametrize("number", sorted(REFUSALS))
def test_refusals_of_the_system_become_one_line(number: int) -> None:
    with pytest.raises(UserError, match=rf"^there: .*; {REFUSALS[number][:12]}") as caught, refusals_of_the_system():
        raise OSError(number, os.strerror(number), "there")
    assert "\n" not in str(caught.value)


def test_refusals_of_the_system_name_a_disk_without_room_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: str) -> None:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.mkstemp", full)
    with pytest.raises(UserError, match=r"^No usable temporary directory found; free some space"), refusals_of_the_system():
        full()
    assert log_error(ZeroDivisionError()) == "no file, since none can be written"


def test_refusals_of_the_system_let_other_errors_pass() -> None:
    for error in (FileNotFoundError(2, "no", "package.html"), ConnectionError("gone"), ZeroDivisionError()):
        with pytest.raises(type(error)), refusals_of_the_system():
            raise error


def test_command_refuses_names_that_are_too_long_in_one_line(tmp_path: Path) -> None:
    for command in ("keep", "report"):
        line = f"import runpy, sys; sys.argv = ['x', 'x' * 300]; runpy.run_module('pipelines.{command}', run_name='__main__')"
        done = python(line, tmp_path)
        assert done.returncode == 2, done.stderr
        assert b"File name too long; choose another file or folder\n" in done.stderr
        assert done.stderr.count(b"\n") == 1


def help_of(command: str, folder: Path) -> str:
    """What `uvb COMMAND --help` prints."""
    name = next(name for name, (module, _) in console.COMMANDS.items() if module == command)
    code = f"import sys; from pipelines.console import main; sys.argv = ['uvb', '{name}', '--help']; main()"
    return python(code, folder, env=ENVIRONMENT | {"COLUMNS": "120"}).stdout.decode()


@pytest.mark.parametrize("command", ["sample", "denoise", "restore", "report", "export", "keep"])
def test_help_names_arguments_by_their_meaning(command: str, tmp_path: Path) -> None:
    usage = help_of(command, tmp_path).splitlines()[0]
    without_options = re.sub(r"\[--[^]]*\]", "", usage)
    given = re.findall(r"(?<=[\] ])[A-Z]+(?= |$)", without_options)
    assert set(given) & {"STUDY", "MODEL"}
    assert not set(given) & {"STR", "PATH"}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_explains_every_option(command: str, tmp_path: Path) -> None:
    """An option without help shows only its name, the kind of its value, and its default."""
    told = help_of(command, tmp_path)
    boxes = "\n".join(line.strip("│").rstrip() for line in told.splitlines() if line.startswith("│"))
    entries = re.split(r"\n(?= (?:--?[a-z]|[A-Z]+))", "\n" + boxes)[1:]
    assert len(entries) > 2
    for entry in entries:
        text = re.sub(r"\(default:.*|\(required\)|^ .*? {2,}", "", entry, flags=re.S)  # without name and default
        assert re.search(r"[a-z]+ [a-zδ]+.* ", text), entry  # several words
    assert "STR" not in told.partition("─ options ─")[0]


@pytest.mark.parametrize("missing", ["tyro", "rich.text"])
def test_uvb_names_a_package_that_is_not_installed(
    missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`pip install .` installs the science and the script `uvb`, but not what the commands need."""

    def absent(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)

    monkeypatch.setattr(console, "import_module", absent)
    monkeypatch.setattr(sys, "argv", ["uvb", "denoise", "--help"])
    with pytest.raises(SystemExit) as ended:
        console.main()
    assert ended.value.code == 2
    package = missing.split(".")[0]
    assert capsys.readouterr().err == f"error: uvb denoise needs the package {package}; pip install -e '.[study]' installs it\n"


def test_sweep_help_says_what_each_space_is_for(tmp_path: Path) -> None:
    told = help_of("sweep", tmp_path)
    assert [name for name in space_names() if not re.search(rf"│ +{name}: \w", told)] == []


BROKEN = """
import sys
from dataclasses import dataclass
from pipelines.cli import command
from pipelines import console
from pipelines.errors import CommandFailed
from uvb.errors import UserError

@dataclass
class Config:
    how: str = ""

def run(config):
    print("σ = 1 ± 0.5")
    if config.how == "user":
        raise UserError("lost http://me:pa/ss@host")
    if config.how == "failed":
        raise CommandFailed("Ray lost its control server")
    if config.how == "bug":
        raise ZeroDivisionError("never\\nthought of http://me:pa/ss@host")
    if config.how == "interrupt":
        raise KeyboardInterrupt
    for _ in range(20_000):
        print("line after line")

command(Config, run)
"""


@pytest.mark.parametrize(
    ("how", "code", "said"),
    [
        ("user", 2, "error: lost http://***@host\n"),
        ("failed", 1, "error: Ray lost its control server\n"),
        ("interrupt", 130, "\ninterrupted\n"),
    ],
)
def test_command_ends_in_one_line_and_an_exit_code(how: str, code: int, said: str, tmp_path: Path) -> None:
    done = python(BROKEN, tmp_path, "--how", how)
    assert (done.returncode, done.stderr.decode()) == (code, said)


@pytest.mark.parametrize("before", [{}, {"NO_PROXY": "intra.net"}, {"no_proxy": "intra.net", "NO_PROXY": "other"}])
def test_requests_to_this_machine_bypass_a_proxy(before: dict[str, str], tmp_path: Path) -> None:
    """Ray's state API sends requests to this machine. The study needs that API to free the CPUs of a killed trial."""
    code = "import pipelines, requests; print(requests.utils.get_environ_proxies('http://127.0.0.1:8265'))"
    plain = {name: value for name, value in ENVIRONMENT.items() if not name.lower().endswith("_proxy")}
    proxied = plain | {"http_proxy": "http://127.0.0.1:9"} | before
    assert python(code, tmp_path, env=proxied).stdout == b"{}\n"
    code = code.replace("127.0.0.1:8265", "a.intra.net")  # a host of the user's own NO_PROXY still bypasses the proxy
    bypassed = python(code, tmp_path, env=proxied).stdout == b"{}\n"
    assert bypassed == bool(before)


def test_command_refuses_python_without_docstrings(tmp_path: Path) -> None:
    """Ray cannot be imported without docstrings."""
    done = python(BROKEN, tmp_path, "--how", "user", env=ENVIRONMENT | {"PYTHONOPTIMIZE": "2"})
    assert done.returncode == 2
    assert done.stderr.decode().startswith("error: Python has removed all docstrings")


def test_command_names_the_log_of_an_unexpected_error(tmp_path: Path) -> None:
    done = python(BROKEN, tmp_path, "--how", "bug")
    line = done.stderr.decode()
    assert done.returncode == 1
    assert line.startswith("unexpected error: ZeroDivisionError: thought of http://***@host; its traceback is in ")
    assert line.count("\n") == 1
    log = Path(line.strip().rpartition(" ")[2])
    text = log.read_text()
    log.unlink()
    assert "Traceback" in text
    assert "pa/ss" not in text


@pytest.mark.parametrize(
    ("encoding", "shown"), [("ascii", "sigma = 1 +- 0.5"), ("latin-1", "sigma = 1 ± 0.5"), ("utf-8", "σ = 1 ± 0.5")]
)
def test_command_spells_letters_that_a_terminal_lacks(encoding: str, shown: str, tmp_path: Path) -> None:
    environment = {**ENVIRONMENT, "PYTHONIOENCODING": encoding}
    done = subprocess.run(
        [sys.executable, "-c", BROKEN], cwd=tmp_path, env=environment, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode(encoding).splitlines()[0] == shown


@pytest.mark.parametrize(
    "shell",
    [
        "{run} | head -1",
        "{run} >&-",
        "{run} <&-",
        "{run} >&- 2>&- <&-",
        "{run} >/dev/full",
        "{help} | head -1",
        "{uvb} | head -1",
        "{uvb} >&- 2>&- <&-",
    ],
)
def test_command_survives_closed_streams(shell: str, tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text(BROKEN + "\n")
    programs = {
        "run": "run.py", "help": f"{ROOT / 'pipelines' / 'full_study.py'} --help", "uvb": "-m pipelines.console --help",
    }  # fmt: skip
    line = "set -o pipefail; " + shell.format(**{name: f"{sys.executable} {words}" for name, words in programs.items()})
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_command_shows_its_first_line_within_two_seconds(tmp_path: Path) -> None:
    started = time.monotonic()
    command = [sys.executable, str(ROOT / "pipelines" / "full_study.py"), "--dataset", "nowhere"]
    process = subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    first = process.stdout.readline()
    seconds = time.monotonic() - started
    process.communicate(timeout=120)
    assert first == b"study nowhere in outputs\n"
    assert seconds < 2 * max(1.0, os.getloadavg()[0])  # other tests run at the same time


def test_log_error_appends_to_the_studys_log(tmp_path: Path) -> None:
    for number in (1, 2):
        where = log_error(ValueError(f"number {number} at http://u:pa/ss@h"), Store(tmp_path))
    assert where == str(tmp_path / "errors.log")
    text = Path(where).read_text()
    assert "number 1" in text
    assert "number 2 at http://***@h" in text


def test_log_error_writes_elsewhere_if_the_store_is_lost(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    where = Path(log_error(ValueError("lost"), Store(tmp_path / "file" / "study")))
    assert "lost" in where.read_text()
    where.unlink()


def test_last_line_leaves_the_traceback_out() -> None:
    assert last_line(RuntimeError("remote\n  Traceback\nValueError: wrong\n")) == "RuntimeError: ValueError: wrong"
    assert last_line(CommandFailed()) == "CommandFailed"
