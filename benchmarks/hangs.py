"""Slow is not hung: every slow phase of the corpus is left alone, every hang is found in time.

Runs all cases under `supervise run`, several at a time. Unlike the other benchmarks this one ends
with 1 when a promise is broken: it is about right and wrong, not about speed. On a starved host
hangs are left alone on purpose, so the title tells the load.
"""

import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from benchmarks.corpus.cases import CASES, SLACK_S, Case
from benchmarks.corpus.signs import HEARTBEAT_S
from benchmarks.corpus.trial import Outcome, Verdict, tried
from benchmarks.figures import Figure, arguments, show

AT_ONCE = 4
UNPROVEN = {Verdict.SKIPPED, Verdict.EXCUSED}


def main() -> int:
    """Try them all and tell; 1 where a promise is broken, or a case broke on the way."""
    given = arguments(__doc__)
    cases = [case for case in CASES if case.quick or not given.quick]
    with tempfile.TemporaryDirectory(prefix="hangs-") as folder, trials(cases, folder) as running:
        outcomes = [future.result() for future in running.values()]
    title = f"hangs (heartbeat {HEARTBEAT_S:.0f} s, load {os.getloadavg()[0]:.1f})"
    show(title, [*totals(outcomes), *map(figure, outcomes)], as_json=given.json)
    broken = [one for one in outcomes if one.verdict not in {Verdict.KEPT, *UNPROVEN}]
    for one in broken:
        print(f"{one.verdict}: {one.case.name}: {one.detail}", file=sys.stderr)
    return 1 if broken else 0


@contextmanager
def trials(
    cases: Iterable[Case], folder: str | Path, at_once: int = AT_ONCE
) -> Iterator[dict[str, Future[Outcome]]]:
    """All cases under way in the background, by name; busy ones never two at a time.

    Leaving the block waits for those that have begun, and begins no more.
    """
    busy, idle = ThreadPoolExecutor(1), ThreadPoolExecutor(at_once)
    try:
        yield {
            case.name: (busy if case.busy else idle).submit(tried, case, Path(folder) / case.name)
            for case in cases
        }
    finally:
        for pool in (busy, idle):
            pool.shutdown(cancel_futures=True)


def totals(outcomes: Sequence[Outcome]) -> list[Figure]:
    """The two promises, over all that could be tried here."""

    def count(name: str, wrong: set[Verdict], *, hangs: bool) -> Figure:
        verdicts = [one.verdict for one in outcomes if one.case.is_hang == hangs]
        tried_here = sum(verdict not in UNPROVEN for verdict in verdicts)
        found = sum(verdict in wrong for verdict in verdicts)
        return Figure(name, found, "", 0, note=f"of {tried_here}")

    return [
        count("false kills", {Verdict.FALSE_KILL}, hangs=False),
        count("missed hangs", {Verdict.MISSED, Verdict.LATE, Verdict.EARLY}, hangs=True),
    ]


def figure(outcome: Outcome) -> Figure:
    """One case: a slow phase's longest silence; a hang's time from its last sign to its end."""
    case, verdict = outcome.case, outcome.verdict
    kind = "slow" if case.deadline_s is None else "hang"
    silent = f"{kind}: {case.name}: silent", outcome.silent_s, "s"
    note = f"{verdict}: {outcome.detail or outcome.cause}"
    if verdict in UNPROVEN:
        return Figure(*silent, note=note)
    if case.deadline_s is None:
        return Figure(*silent, note=note)
    return Figure(*silent, case.deadline_s + SLACK_S, note=note)


if __name__ == "__main__":
    sys.exit(main())
