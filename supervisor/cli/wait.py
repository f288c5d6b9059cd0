"""`supervise wait`: block until jobs have ended, and leave with their exit code.

Owns the verb: which jobs, until when, and what several exit codes make together. The waiting itself
is `waiting`'s.
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import click

from supervisor.cli.arguments import jobs_argument
from supervisor.cli.reach import Reach, reached
from supervisor.cli.waiting import wait_for
from supervisor.client.answers import Waited
from supervisor.runner.exits import Exit

TIMED_OUT = 124  # as timeout(1) has it
MOST_AT_ONCE = 100  # --any keeps a connection for each job
# Of several jobs the worst counts: one that failed hides that another only waits for a person.
_WORST_LAST = (Exit.DONE, Exit.STOPPED, Exit.HOLDING, Exit.FAILED)


@click.command("wait")
@jobs_argument
@click.option("--timeout", "limit", metavar="DURATION", help="Give up after so long, such as 2h.")
@click.option("--any", "first", is_flag=True, help="Until one of them has ended, not all.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON (docs/json.md).")
@click.pass_obj
def command(
    state_dir: Path, jobs: tuple[str, ...], *, limit: str | None, first: bool, as_json: bool
) -> None:
    """Wait until jobs have ended, and tell how each did.

    The exit code is what `supervise run` would have ended with: 0 done, 1 failed or cancelled,
    3 holding (needs a person), 75 stopped and resumable. Of several jobs it is the worst: 1, then
    3, 75, 0. It is 3, too, where a job's runner is gone and nobody brings the job on, or the
    daemon does not answer; and 124 where the time was up first.
    """
    deadline = math.inf if limit is None else time.monotonic() + _seconds(limit)
    texts: Sequence[str | None] = jobs or (None,)
    with reached(state_dir) as reach:
        ended = _first(reach, texts, deadline) if first else _each(reach, texts, deadline)
        told = []
        for one in ended:
            told.append(one)
            if not as_json:
                click.echo(_line(one))
    if as_json:
        from supervisor.cli.fields import print_json  # noqa: PLC0415 - for this option alone

        print_json([asdict(one) for one in told])
    raise click.exceptions.Exit(together(told))


def together(told: Sequence[Waited]) -> int:
    """The exit code that several jobs make together."""
    codes = [one.exit_code for one in told]
    known = [code for code in codes if code is not None]
    worst = max(known, key=_badness, default=Exit.DONE)
    return TIMED_OUT if None in codes and worst in {Exit.DONE, Exit.STOPPED} else int(worst)


def _badness(code: int) -> int:
    return _WORST_LAST.index(Exit(code)) if code in set(_WORST_LAST) else len(_WORST_LAST)


def _seconds(text: str) -> float:
    from supervisor.spec.problems import BadValue  # noqa: PLC0415 - for this option alone
    from supervisor.spec.units import read_duration  # noqa: PLC0415 - the same

    try:
        return read_duration(text)
    except BadValue as error:
        raise click.UsageError(f"--timeout: {error}: {error.hint}") from error


def _line(one: Waited) -> str:
    if one.ended:
        return f"{one.id}: {one.state}"
    return f"{one.id}: has not ended, {one.state}"


def _each(reach: Reach, texts: Sequence[str | None], deadline: float) -> Iterator[Waited]:
    """One after the other: all of them have ended when the last has."""
    for text in texts:
        yield wait_for(reach, text, deadline)


def _first(reach: Reach, texts: Sequence[str | None], deadline: float) -> Iterator[Waited]:
    """Whichever ends first; the others are waited for no longer."""
    if len(texts) > MOST_AT_ONCE:
        raise click.UsageError(f"--any takes at most {MOST_AT_ONCE} jobs")
    import queue  # noqa: PLC0415 - for this option alone
    import threading  # noqa: PLC0415 - the same

    answers: queue.SimpleQueue[Waited | Exception] = queue.SimpleQueue()

    def wait(own: Reach, text: str | None) -> None:
        try:
            answers.put(wait_for(own, text, deadline))
        except Exception as error:  # noqa: BLE001 - it is raised where somebody hears it
            answers.put(error)

    for text in texts:
        # They end with the process: whoever waits in one of them is not waited for.
        threading.Thread(target=wait, args=(reach.another(), text), daemon=True).start()
    late: list[Waited] = []
    for _ in texts:
        answer = answers.get()
        if isinstance(answer, Exception):
            raise answer
        if answer.ended:
            yield answer
            return
        late.append(answer)
    yield from late
