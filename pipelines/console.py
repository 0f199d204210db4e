"""The console script `uvb COMMAND ...`. Each command is also a file: `python pipelines/full_study.py ...`."""

import sys
from importlib import import_module

from pipelines.streams import steady_streams

COMMANDS = {
    "study": ("full_study", "train, measure and report the whole study"),
    "sweep": ("sweep", "train a named space of models"),
    "sample": ("sample", "draw images from a model by walk-jump"),
    "denoise": ("denoise", "clean noisy pictures with a model"),
    "restore": ("restore", "inpaint, deblur or enlarge pictures with a model"),
    "report": ("report", "rebuild a report, or compare studies"),
    "export": ("export", "hand a study to TensorBoard or Weights & Biases"),
    "keep": ("keep", "copy what a study found, without weights"),
}


def usage() -> str:
    """The text of `uvb --help`."""
    lines = [f"  {name:<9}{about}" for name, (_, about) in COMMANDS.items()]
    return "\n".join(["usage: uvb COMMAND [options]", "", *lines, "", "uvb COMMAND --help lists the options of a command."])


def main() -> None:
    """Run the command that the first word names; if there is none, print one line and exit with 2."""
    steady_streams()
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print(usage())
    elif name in COMMANDS:
        module = COMMANDS[name][0]
        sys.argv = [f"uvb {name}", *sys.argv[2:]]
        try:
            command = import_module(f"pipelines.{module}")
        except ModuleNotFoundError as error:  # `pip install .` installs this script, but not the packages of `[study]`
            missing = (error.name or "").partition(".")[0]
            if missing in ("pipelines", "uvb"):
                raise
            print(f"error: uvb {name} needs the package {missing}; pip install -e '.[study]' installs it", file=sys.stderr)
            sys.exit(2)
        command.main()
    else:
        print(f"error: no command {name!r}; choose one of: {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
