"""From what was wished for to an executor."""

from __future__ import annotations

from lapilli.apps.jobs.work import Executor


def open_executor(*, workers: int | None = None, ray: str | None = None) -> Executor:
    """This process; `workers` processes; or with `ray`, an address or "local", actors on a cluster.

    Raises InputError for less than one worker.
    """
    if ray is not None:
        from lapilli.apps.executors.ray import RayExecutor

        return RayExecutor(address=ray, workers=workers)
    if workers is None:
        from lapilli.apps.executors.local import LocalExecutor

        return LocalExecutor()
    from lapilli.apps.executors.processes import ProcessExecutor

    return ProcessExecutor(workers)
