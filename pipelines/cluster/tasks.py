"""Run measurements as Ray tasks, one for each model and experiment, and retry those that fail."""

from collections.abc import Callable, Iterator, Sequence

import ray

from pipelines.cluster.layout import Layout
from pipelines.errors import last_line
from pipelines.executor.measuring import Settings, Task, run_task
from pipelines.files.store import Store

RETRIES = 3


def run_tasks(
    tasks: Sequence[Task], store: Store, settings: Settings, layout: Layout, check: Callable[[], None]
) -> Iterator[tuple[int, dict[str, str]]]:
    """Run `tasks` as Ray tasks. About once a second, yield how many have ended, and the errors so far (folder -> error).

    Args:
        check: called before each request to Ray. It must raise if Ray is dead, because a dead Ray never answers.
    """
    gpus = min(1.0, layout.gpus_per_worker)
    remote = ray.remote(run_task).options(num_cpus=1, num_gpus=gpus, max_retries=RETRIES, retry_exceptions=True)
    waiting = {remote.remote(task, store, settings): task for task in tasks}
    failed: dict[str, str] = {}
    while waiting:
        check()
        done, _ = ray.wait(list(waiting), timeout=1.0)
        for ended in done:
            task = waiting.pop(ended)
            try:
                ray.get(ended)
            except Exception as error:
                failed[task.folder] = f"{task.label} ({task.folder}): {last_line(error)}"
        yield len(tasks) - len(waiting), failed
