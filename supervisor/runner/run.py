"""Runs one job that is in hand: signals in, final state out.

Owns the joint of loop, effects and signals. `supervise run`, and a runner that was started without
a terminal, both end here.
"""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from supervisor.core.causes import State
from supervisor.runner.effects import Effects
from supervisor.runner.listener import Audience, Listener
from supervisor.runner.log import RunnerLog
from supervisor.runner.loop import Loop
from supervisor.runner.opening import OpenJob

SOURCES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "SIGHUP"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: where the job is, and whether somebody pressed Ctrl-C twice."""

    state: State
    forced: bool
    why: str


def run(
    job: OpenJob,
    *listeners: Listener,
    keep_scratch: bool = False,
    stopped_by: str | None = None,
) -> Outcome:
    """Bring a job as far as it goes.

    SIGINT, SIGTERM and SIGHUP ask it to stop; the second one kills the worker. `keep_scratch` keeps
    the scratch folder also after success. With `stopped_by` it is asked to stop before anything
    begins: only what an earlier runner left is seen out.

    Raises:
        JournalError: the journal refuses; the job stands where its last event left it.
    """
    log = RunnerLog(job.folder.runner_log, job.id)
    try:
        loop = _run(job, Audience(log, *listeners), stopped_by, keep_scratch=keep_scratch)
        return asyncio.run(loop)
    finally:
        log.close()


async def _run(
    job: OpenJob, listener: Listener, stopped_by: str | None, *, keep_scratch: bool
) -> Outcome:
    loop = Loop(job, listener)
    effects = Effects(loop, keep_scratch=keep_scratch)
    try:
        with _signals(loop):
            loop.replay()
            effects.begin()
            if stopped_by is not None:
                loop.stop(stopped_by)  # a task: its turn comes after that of RunnerStarted
            state = await loop.run()
    finally:
        await effects.close()
    return Outcome(state, loop.stopped_by_force, loop.state.why)


@contextmanager
def _signals(loop: Loop) -> Iterator[None]:
    running = asyncio.get_running_loop()
    # What the caller ignores (nohup ignores SIGHUP) stays ignored.
    heeded = [number for number in SOURCES if signal.getsignal(number) is not signal.SIG_IGN]
    for number in heeded:
        running.add_signal_handler(number, loop.stop, SOURCES[number])
    try:
        yield
    finally:
        for number in heeded:
            running.remove_signal_handler(number)
