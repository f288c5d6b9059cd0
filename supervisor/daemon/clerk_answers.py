"""What a clerk says, looked at before the daemon acts on it.

A clerk is a process of the user's, who may do to it whatever they like. Owns the shape of those
answers that the daemon reads, and of the rows that all users' lists are made of; other documents
only pass through it, to the one who asked. Invariant: no answer speaks of a job that was not asked
about, none has a need below zero, and a row of a list has every field and nothing else.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from supervisor.core.causes import State
from supervisor.daemon.contracts import Json, Refusal, ShelfUnavailable
from supervisor.daemon.desk_fields import (
    Arguments,
    Field,
    Kind,
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

MOST_PID = 1 << 22  # PID_MAX_LIMIT
MOST = 1 << 62
LONGEST_TEXT = 64 * 1024
LONGEST_SPEC = 4 * 1024 * 1024
SHORT = 256
LONGEST_PATH = 4096
MOST_AFTER = 10_000
# As supervisor.spec has them, which would bring all of a job file's schema with it.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_KEY_LENGTH = 256
_INSTANT = re.compile(
    r"(19|2[0-9])[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z"
)

_short = text(SHORT)
_long = text(LONGEST_TEXT)
_state = needed(one_of(*State))


def _like(pattern: re.Pattern[str]) -> Kind:
    """Text that a pattern describes from its beginning to its end."""

    def read_like(name: str, value: Json) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise Refusal(f"{name}: not like {pattern.pattern}: {shown(value)}")
        return value

    return read_like


def _key(name: str, value: Json) -> str:
    """What a job may be submitted under: to be read, and more than blanks."""
    found: str = text(_KEY_LENGTH)(name, value)
    if not found.strip() or not found.isprintable():
        raise Refusal(f"{name}: no key: {shown(found)}")
    return found


def _absolute(name: str, value: Json) -> str:
    found: str = text(LONGEST_PATH)(name, value)
    if not found.startswith("/"):
        raise Refusal(f"{name}: no absolute path: {shown(found)}")
    return found


_NEEDS = {
    "gpus": needed(whole(0, 1 << 16)),
    "gpu_memory_bytes": needed(either(whole(0, MOST))),
    "share_gpu": needed(flag),
    "cpus": needed(whole(1, 1 << 22)),
    "memory_bytes": needed(either(whole(0, MOST))),
}
_EXAMINED = {
    "spec": needed(text(LONGEST_SPEC)),
    "name": needed(_like(_NAME)),
    "folder": needed(_absolute),
    "needs": needed(lambda name, value: read(name, _NEEDS, value)),
    "priority": needed(whole(-100, 100)),
    "after": needed(each(_like(_REFERENCE), MOST_AFTER)),
    "key": needed(either(_key)),
    "group": needed(either(_like(_NAME))),
    "hold_after": needed(either(whole(1, MOST))),
    "claims": needed(each(_absolute, 100)),
    "env_keep": needed(each(_short, 10_000)),
    "stop_s": needed(number),
    "generation": needed(whole(1, MOST)),
}
_RUNNER = {
    "pid": needed(either(whole(1, MOST_PID))),
    "start_ticks": needed(either(whole(0, MOST))),
    "boot_id": needed(either(_short)),
    "locked_by": needed(either(whole(0, MOST_PID))),
    "state": _state,
    "why": needed(_long),
    "ended": needed(flag),
}


def _instant(name: str, value: Json) -> Json:
    """An instant as `views.times.iso` writes it, which every reader can read."""
    with suppress(ValueError):
        if isinstance(value, str) and _INSTANT.fullmatch(value) and datetime.fromisoformat(value):
            return value
    raise Refusal(f"{name}: no instant: {shown(value)}")


_TOLD = {
    "id": needed(job_id),
    "name": needed(job_id),  # of the same characters
    "state": _state,
    "why": needed(_long),
    "step": needed(either(whole(0, MOST))),
    "total": needed(either(whole(0, MOST))),
    "folder": needed(_absolute),
    "created_at": needed(_instant),
    "updated_at": needed(_instant),
    "runner_pid": needed(either(whole(0, MOST_PID))),
    "runner_alive": needed(either(flag)),
}
_LISTED = _TOLD | {
    "attempt": needed(either(whole(0, MOST))),
    "last_cause": needed(either(_short)),
}


def _row(name: str, value: Json) -> Json:
    """A row stands among those of others: what is not known, as of a newer clerk, is left out."""
    return read(name, _LISTED, _known(_LISTED, value))


def _document(name: str, value: Json) -> Json:
    """What is known of a document is of its kind; what a newer clerk adds passes."""
    read(name, _TOLD, _known(_TOLD, value))
    return value


def _object(fields: Mapping[str, Field]) -> Kind:
    # A clerk is begun anew, the daemon is not: for a while it may be of an older version.
    return lambda name, value: read(name, fields, _known(fields, value))


def _known(fields: Mapping[str, Field], value: Json) -> Json:
    if not isinstance(value, Mapping):
        return value
    return {name: one for name, one in value.items() if name in fields}


_SHAPES: Mapping[str, Kind] = {
    "examine": _object(_EXAMINED),
    "accept": _object({}),
    "runner": _object(_RUNNER),
    "stop": _object({"heard": needed(flag)}),
    "conclude_stop": _object({}),
    "conclude_cancel": _object({}),
    "remove": _object({}),
    "requeue": _object({"numbers": needed(each(whole(0, MOST), 1 << 24)), "words": needed(_long)}),
    "old": _object({"ids": needed(job_ids)}),
    "sweep": _object({"ids": needed(job_ids)}),
    "totals": either(mapping),
    "document": _document,
    "explain": _document,
    "report": _document,
    "record": mapping,
    "log": mapping,
    "records": each(mapping, MOST),
    "listing": each(_row, MOST),
    "events": each(mapping, MOST),
    "attempts": each(mapping, MOST),
    "checkpoints": each(mapping, MOST),
    "progress": mapping,
    "runners": mapping,
}


def checked(question: str, arguments: Arguments, answer: Json) -> Json:
    """Give the answer back if it is one. Raises ShelfUnavailable."""
    try:
        found = _SHAPES[question](question, answer)
        _of_what_was_asked(question, arguments, found)
    except (Refusal, KeyError) as error:
        raise ShelfUnavailable(f"a clerk answered what is no answer: {error}") from error
    return found


def _of_what_was_asked(question: str, arguments: Arguments, found: Any) -> None:  # noqa: ANN401 - JSON
    """Raise Refusal where a job is spoken of that nobody asked about."""
    if question in {"document", "explain", "report", "record"}:
        _named(question, [arguments["id"]], [found.get("id")])
    elif question in {"listing", "records"} and arguments.get("ids") is not None:
        _named(question, arguments["ids"], [one.get("id") for one in found])
    elif question in {"progress", "runners"} and arguments.get("ids") is not None:
        _named(question, arguments["ids"], list(found))


def _named(question: str, asked: Sequence[str], told: Sequence[Json]) -> None:
    known = set(asked)
    if not all(isinstance(one, str) and one in known for one in told):
        raise Refusal(f"{question}: of a job that was not asked about")
