"""Parts of a job's logs, byte for byte.

Owns opening them safely: what a worker can put in a log's place (a link, a pipe, a device) is never
followed and never waited for. Invariant: an answer holds at most MOST_BYTES of a file.
"""

import base64
import os
import stat
from pathlib import Path

from supervisor.daemon.contracts import Json, NoSuchJob, Refusal
from supervisor.daemon.desk_fields import Arguments
from supervisor.daemon.desk_shelf import OpenShelf
from supervisor.journal import AttemptRecord

MOST_BYTES = 1024 * 1024
USUAL_BYTES = 256 * 1024
WORKER, RUNNER, RUNNER_OUT = "worker", "runner", "runner_out"
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY


def log(shelf: OpenShelf, given: Arguments) -> Json:
    """A part of what the worker printed; `file` may ask for the runner's own log instead.

    `next` is where to go on; `ended`: that attempt writes no more. Without a number, of the last
    attempt; where there is none yet, `attempt` is null and the part is empty.
    """
    chosen = shelf.chosen(given["id"])
    if given["file"] != WORKER:
        folder = chosen.folder
        path = folder.runner_log if given["file"] == RUNNER else folder.path / "runner.out"
        return {"attempt": None, "ended": False} | _part(path, given)
    found = chosen.journal.attempts(given["id"])
    one = _attempt(given["id"], found, given["attempt"])
    if one is None:
        return {"attempt": None, "ended": False} | _answer(given["offset"], 0, b"")
    path = chosen.folder.attempt(one.number).log
    return {"attempt": one.number, "ended": one.ended_s is not None} | _part(path, given)


def _attempt(job_id: str, found: list[AttemptRecord], number: int | None) -> AttemptRecord | None:
    if number is None:
        return found[-1] if found else None
    for one in found:
        if one.number == number:
            return one
    had = f"it has had {len(found)}" if found else "none has begun yet"
    raise NoSuchJob(f"{job_id} has no attempt {number}: {had}")


def _part(path: Path, given: Arguments) -> dict[str, Json]:
    try:
        descriptor = os.open(path, _FLAGS)
    except FileNotFoundError:
        return _answer(0, 0, b"")
    except OSError as error:
        raise Refusal(f"the log {path} cannot be read: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Refusal(f"the log {path} is no regular file, and is left alone")
        offset = min(given["offset"], status.st_size)  # it is shorter than it was: it was replaced
        data = os.pread(descriptor, given["limit"], offset)
    except OSError as error:
        raise Refusal(f"the log {path} cannot be read: {error.strerror}") from error
    finally:
        os.close(descriptor)
    return _answer(offset, max(status.st_size, offset + len(data)), data)


def _answer(offset: int, size: int, data: bytes) -> dict[str, Json]:
    return {
        "offset": offset,
        "next": offset + len(data),
        "size": size,
        "data": base64.b64encode(data).decode("ascii"),
    }
