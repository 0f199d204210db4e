"""Find a test's processes by a mark in their environment, and end them by process id."""

import os

import psutil

MARK = "UVB_TEST_MARK"


def marked(mark: str) -> list[psutil.Process]:
    """The living processes that inherited `mark`, except this process."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def titled(mark: str, title: str) -> list[psutil.Process]:
    """The marked processes with a command that begins with `title`. A Ray worker shows ``ray::`` and the task that it runs."""
    found = []
    for process in marked(mark):
        try:
            if " ".join(process.cmdline()).startswith(title):
                found.append(process)
        except psutil.Error:
            continue
    return found


def end_marked(mark: str) -> None:
    """Kill all marked processes, and those that they start meanwhile. Spare the caller and its parents."""
    mine = {process.pid for process in [psutil.Process(), *psutil.Process().parents()]}
    for _ in range(20):
        left = [process for process in marked(mark) if process.pid not in mine]
        if not left:
            return
        for process in left:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(left, timeout=3)
