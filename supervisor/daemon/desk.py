"""The desk of a shelf: every question that can be asked about a user's jobs, and its answer.

Owns the table of questions, and what an error becomes. It always runs with the rights of the user
whose shelf it is, in the daemon of that user or in a clerk. Invariant: whatever is asked, and
whatever lies on the shelf, there is an answer that is JSON, or a Refusal.
"""

import json
import math
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from supervisor.daemon import desk_control, desk_logs, desk_reading
from supervisor.daemon.contracts import Json, Refusal, ShelfUnavailable
from supervisor.daemon.desk_fields import (
    Arguments,
    Field,
    each,
    either,
    flag,
    job_id,
    job_ids,
    mapping,
    needed,
    number,
    one_of,
    read,
    shown,
    text,
    whole,
)
from supervisor.daemon.desk_shelf import OpenShelf
from supervisor.journal import JournalError

MOST_JOBS = 10_000
MOST_EVENTS = 10_000
MOST_SUMMED = 20_000
LAST_OFFSET = 1 << 62
LONGEST_TEXT = 4096
LONGEST_PATH = 4096
LONGEST_SPEC = 4 * 1024 * 1024
_INTEGERS = 1 << 63


@dataclass(frozen=True, slots=True)
class Question:
    """What answers it, and which arguments it takes. `slow`: it may wait for other processes."""

    answer: Callable[[OpenShelf, Arguments], Json]
    fields: Mapping[str, Field]
    slow: bool = False


def _examine(shelf: OpenShelf, given: Arguments) -> Json:
    from supervisor.daemon import desk_intake  # noqa: PLC0415 - readers need no schema

    return desk_intake.examine(shelf, given)


def _accept(shelf: OpenShelf, given: Arguments) -> Json:
    from supervisor.daemon import desk_intake  # noqa: PLC0415 - as above

    return desk_intake.accept(shelf, given)


_ONE = {"id": needed(job_id)}
_SOME = {"ids": Field(either(job_ids))}
_BY = _ONE | {"source": needed(text(LONGEST_TEXT))}
_EXAMINED = {
    "spec": Field(either(text(LONGEST_SPEC))),
    "job": Field(either(mapping)),
    "folder": Field(either(text(LONGEST_PATH))),
    "params": Field(either(mapping)),
}
_EVENTS = _ONE | {
    "after": Field(whole(0, LAST_OFFSET), 0),
    "limit": Field(whole(1, MOST_EVENTS), 1000),
}
_LOG = _ONE | {
    "attempt": Field(either(whole(1, LAST_OFFSET))),
    "offset": Field(whole(0, LAST_OFFSET), 0),
    "limit": Field(whole(0, desk_logs.MOST_BYTES), desk_logs.USUAL_BYTES),
    "file": Field(
        one_of(desk_logs.WORKER, desk_logs.RUNNER, desk_logs.RUNNER_OUT), desk_logs.WORKER
    ),
}
_TOTALS = {
    "after_seq": Field(either(whole(0, LAST_OFFSET))),
    "limit": Field(whole(0, MOST_SUMMED), 5_000),
}
_OLD = {"older_than_s": Field(either(number)), "keep_bytes": Field(either(whole(0, LAST_OFFSET)))}

QUESTIONS: Mapping[str, Question] = {
    "examine": Question(_examine, _EXAMINED),
    "accept": Question(_accept, {"jobs": needed(each(mapping, MOST_JOBS))}),
    "records": Question(desk_reading.records, _SOME),
    "record": Question(desk_reading.record, _ONE),
    "listing": Question(desk_reading.listing, _SOME),
    "document": Question(desk_reading.document, _ONE),
    "explain": Question(desk_reading.explain, _ONE),
    "report": Question(desk_reading.report, _ONE),
    "attempts": Question(desk_reading.attempts, _ONE),
    "checkpoints": Question(desk_reading.checkpoints, _ONE),
    "events": Question(desk_reading.events, _EVENTS),
    "log": Question(desk_logs.log, _LOG),
    "totals": Question(desk_reading.totals, _TOTALS),
    "progress": Question(desk_reading.progress, {"ids": needed(either(job_ids))}),
    "runner": Question(desk_reading.runner, _ONE),
    "runners": Question(desk_reading.runners, _SOME),
    "stop": Question(desk_control.stop, _ONE | {"kill": Field(flag, default=False)}),
    "conclude_stop": Question(desk_control.conclude_stop, _BY, slow=True),
    "conclude_cancel": Question(desk_control.conclude_cancel, _BY, slow=True),
    "requeue": Question(
        desk_control.requeue, _ONE | {"items": needed(each(text(LONGEST_TEXT), MOST_JOBS))}
    ),
    "remove": Question(desk_control.remove, _ONE, slow=True),
    "sweep": Question(desk_control.sweep, {}, slow=True),
    "old": Question(desk_control.old, _OLD, slow=True),
}


_LATE = (
    *("daemon.desk_intake", "journal.codec", "journal.derive", "journal.items"),
    *("runner.concluding", "views.batch", "views.losses", "views.next_step", "views.proof"),
)


def load_late() -> None:
    """Load what a verb loads only where it is needed.

    An upgrade may replace these files at any time, and what is newer does not fit what runs.
    """
    for name in _LATE:
        import_module(f"supervisor.{name}")


def is_slow(question: str, arguments: Mapping[str, Json]) -> bool:
    """Whether a question may take long, and is not to be in the way of others."""
    if question == "stop":
        return bool(arguments.get("kill"))  # only that waits until it was heard
    return question in QUESTIONS and QUESTIONS[question].slow


class Desk:
    """Answers questions about one shelf. For one thread."""

    def __init__(self, path: Path) -> None:
        self._shelf = OpenShelf(path)

    def answer(self, question: str, arguments: Json) -> Json:
        """Answer. Raises Refusal, and nothing else."""
        known = QUESTIONS.get(question) if isinstance(question, str) else None
        if known is None:
            raise Refusal(f"nobody answers {shown(question)}")
        given = read(question, known.fields, arguments)
        try:
            return _plain(known.answer(self._shelf, given))
        except Refusal:
            raise
        except (JournalError, sqlite3.Error) as error:
            self._shelf.close()
            raise ShelfUnavailable(str(error)) from error
        except OSError as error:
            raise ShelfUnavailable(f"{question}: {error}") from error
        except Exception as error:
            # Whatever lies there, or is wrong with us: the desk stays open for other jobs.
            self._shelf.close()
            what = f"{type(error).__name__}: {error}"
            raise ShelfUnavailable(
                f"{question}: what lies in {self._shelf.path} cannot be understood ({what})"
            ) from error

    def close(self) -> None:
        """Let go of the shelf."""
        self._shelf.close()


def answer(shelf: Path, question: str, arguments: Json) -> Json:
    """Answer one question, once. Raises Refusal."""
    desk = Desk(shelf)
    try:
        return desk.answer(question, arguments)
    finally:
        desk.close()


def _plain(value: Json) -> Json:
    """The answer as JSON that anybody can read: no NaN, no bytes, no half characters."""
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, TypeError, RecursionError):
        return _cleaned(value)
    return value


def _cleaned(value: Json) -> Json:
    if isinstance(value, Mapping):
        return {_text(str(key)): _cleaned(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if -_INTEGERS <= value < _INTEGERS else None
    return _text(value.decode(errors="replace") if isinstance(value, bytes) else str(value))


def _text(value: str) -> str:
    return value.encode(errors="replace").decode()
