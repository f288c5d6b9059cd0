"""The evidence of an attempt, as `explain` tells it.

Owns the reading of stored evidence and of what an attempt left on disk. Everything may be missing
or damaged: what cannot be read is left out, and the telling goes on.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from supervisor.core.amounts import seconds
from supervisor.core.status import signal_name
from supervisor.journal import AttemptRecord
from supervisor.views import proof_gpu, proof_report
from supervisor.views.chosen import Chosen
from supervisor.views.plain import printable, short

STACK_LINES = 12
LINE_BYTES = 4096

Raw = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Start:
    """What was found when an attempt was about to start."""

    restored: bool = False
    rejected: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Proof:
    """What speaks for the cause: its reason, and what the reason does not say already.

    Paths are None where there is no such file; `hang` are the files that were written of a hang.
    """

    raw: Raw | None = None
    reason: str = ""
    lines: tuple[str, ...] = ()
    log: str | None = None
    stack: str | None = None
    stack_lines: tuple[str, ...] = ()
    hang: tuple[str, ...] = ()


def starts_of(chosen: Chosen) -> dict[int | None, Start]:
    """What each attempt started from, by its number; None stands for one that was not started."""
    starts: dict[int | None, Start] = {}
    # A choice and the attempt that follows from it are one transaction, with one instant.
    numbers = {one.chosen_s: one.number for one in chosen.journal.attempts(chosen.record.id)}
    for event in chosen.journal.events_of_kind(chosen.record.id, "CheckpointChosen"):
        body = _object(event.body)
        folder = chosen.record.folder
        rejected = tuple(_rejected(one, folder) for one in body.get("rejected") or ())
        number = numbers.get(event.at_s)
        starts[number] = Start(bool(body.get("restored")), rejected)
        if number is not None:
            starts.pop(None, None)  # an earlier choice that led nowhere is history
    return starts


def _rejected(one: Raw, folder: str) -> str:
    path, aside = short(str(one.get("path")), folder), one.get("set_aside_to")
    kept = f"; kept as {short(aside, folder)}" if aside else ""
    reason = str(one.get("reason"))
    what = "is not used" if reason.startswith("the policy") else "does not verify"
    return f"checkpoint {path} {what}: {reason}{kept}"


def proof_of(chosen: Chosen, one: AttemptRecord) -> Proof:
    """The evidence of an attempt that ended, and the files of any."""
    raw = _object(one.evidence) if one.evidence else None
    folder = chosen.folder.attempt(one.number)
    hint = (raw or {}).get("root_error") or {}
    reason = (one.reason or "").removesuffix(f"; {hint.get('hint')}")
    has_stack = folder.stack.exists()
    return Proof(
        raw=raw,
        reason=printable(reason),
        lines=tuple(_lines(raw or {}, reason)),
        log=str(folder.log) if folder.log.exists() else None,
        stack=str(folder.stack) if has_stack else None,
        stack_lines=_beginning(folder.stack) if has_stack else (),
        hang=tuple(
            str(path) for path in (folder.processes, folder.gpu, folder.tail) if path.exists()
        ),
    )


def _beginning(path: Path) -> tuple[str, ...]:
    """The first lines of a file, their indentation kept: it says which frame is whose."""
    with path.open("rb") as file:
        lines = islice(iter(lambda: file.readline(LINE_BYTES), b""), STACK_LINES)
        texts = [line.decode(errors="replace").rstrip() for line in lines]
    indents = [" " * (len(text) - len(text.lstrip(" "))) for text in texts]
    told = [before + printable(text.strip()) for before, text in zip(indents, texts, strict=True)]
    return tuple(line for line in told if line.strip())


def _object(text: str) -> Raw:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _status(raw: Raw) -> str | None:
    if raw.get("signal") is not None:
        return f"the process was ended by {signal_name(raw['signal'])}"
    if raw.get("exit_code") is not None:
        return f"the process left with exit code {raw['exit_code']}"
    return None if raw.get("spawn_error") else "nobody saw how the process ended"


def _deadline(raw: Raw) -> str | None:
    if raw.get("deadline") is None:
        return None
    return f"the {raw['deadline']} deadline of {seconds(raw.get('deadline_s') or 0)} passed"


def _spawn(raw: Raw) -> str | None:
    error = raw.get("spawn_error")
    return f"starting it failed at '{error['stage']}': {error['message']}" if error else None


def _root(raw: Raw) -> str | None:
    error = raw.get("root_error")
    return f"first error in its output: {error['line']}" if error else None


def _hint(raw: Raw) -> str | None:
    error = raw.get("root_error")
    return f"what helps: {error['hint']}" if error else None


def _last_words(raw: Raw) -> str | None:
    line, error = raw.get("error_line"), raw.get("root_error")
    return (
        None
        if not line or (error and error["line"] == line)
        else f"last line of its output: {line}"
    )


def _done(raw: Raw) -> str | None:
    if raw.get("done") is None or raw.get("exit_code") is None:  # a killed one is never done
        return None
    return f"{'done' if raw['done'] else 'not done'}: {raw.get('done_detail')}"


def _oom(raw: Raw) -> str | None:
    kills = raw.get("oom_kills")
    return (
        f"the kernel killed {kills} process(es) on this host for memory meanwhile"
        if kills
        else None
    )


def _survivors(raw: Raw) -> str | None:
    left = ", ".join(map(str, raw.get("survivors") or ()))
    return f"SIGKILL did not end process {left}" if left else None


# What is told, in the order of telling.
_TOLD: tuple[Callable[[Raw], str | None], ...] = (
    _spawn,
    _deadline,
    _status,
    proof_report.error,
    proof_report.details,
    _root,
    _last_words,
    _hint,
    _done,
    proof_gpu.held,
    proof_gpu.curve,
    proof_gpu.troubles,
    proof_gpu.oom,
    _oom,
    proof_gpu.no_room,
    _survivors,
)


def _lines(raw: Raw, reason: str) -> Iterator[str]:
    """What the evidence says, but for quotations that the reason contains."""
    for tell in _TOLD if raw else ():
        line = tell(raw)
        _, colon, quoted = (line or "").partition(": ")
        if line is not None and not (colon and quoted in reason):
            yield printable(line)
