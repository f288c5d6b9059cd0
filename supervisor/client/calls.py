"""The routes of the API, as functions with types.

Owns paths and the shape of answers; opens no connection of its own but for streams. Invariant: what
a newer daemon adds to an answer is ignored, what it leaves out is an error in words.
"""

from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlencode

from supervisor.client.answers import Accepted, LogPart, Told, Waited
from supervisor.client.connection import ANSWER_S, Connection
from supervisor.client.errors import ClientError

if TYPE_CHECKING:
    from supervisor.client.streams import Said

Json = Any  # what json.loads gives

SUBMIT_S = 120.0  # hundreds of jobs are synced to disk before the answer
WAIT_S = 45.0  # one question of `wait`; then it is asked again, so that a dead daemon is noticed
STOP_S = 120.0
LEAST_ANSWER_S = 5.0  # beyond what was asked for, until a daemon counts as one that hangs


RowT = TypeVar("RowT", Accepted, LogPart, Told, Waited)


class Daemon:
    """The daemon at the other end of a connection.

    Every method raises what `Connection.request` does. `job` is an id, or a unique name or the
    beginning of an id, as the daemon understands it.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def status(self) -> dict[str, Json]:
        """Version, pid, folders, and how many jobs are in which phase."""
        return _mapping(self.connection.request("GET", "/v1/daemon"))

    def submit(
        self, jobs: Sequence[Mapping[str, Json]], surroundings: Mapping[str, Json]
    ) -> tuple[list[Accepted], list[str]]:
        """Have jobs accepted: all of them, or none. In the order given.

        Also gives the variables that the daemon does not store, as they look like secrets.
        """
        body = {"jobs": list(jobs), "surroundings": dict(surroundings)}
        answer = self.connection.request("POST", "/v1/jobs", body, SUBMIT_S)
        accepted = [_row(Accepted, one) for one in _list(answer, "jobs")]
        return accepted, [str(one) for one in answer.get("left_out") or ()]

    def jobs(self, **which: str | int | None) -> list[dict[str, Json]]:
        """The listing: `state`, `user`, `group`, `limit` and `after_seq` narrow it."""
        given = {name: value for name, value in which.items() if value is not None}
        path = "/v1/jobs" + (f"?{urlencode(given)}" if given else "")
        return _list(self.connection.request("GET", path), "jobs")

    def document(self, job: str, part: str = "", **which: str | int | None) -> Json:
        """What there is to read of a job: itself, or its `explain`, `report`, `events`, `log`."""
        given = {name: value for name, value in which.items() if value is not None}
        path = _path(job, *filter(None, [part])) + (f"?{urlencode(given)}" if given else "")
        return self.connection.request("GET", path)

    def events(self, job: str, after: int = 0) -> Iterator[dict[str, Json]]:
        """The events of its journal behind a sequence number, oldest first; asked page by page."""
        while True:
            page = _list(self.document(job, "events", after=after), "events")
            yield from page
            if not page:
                return
            after = int(page[-1]["seq"])

    def log(self, job: str, **which: str | int | None) -> LogPart:
        """A part of a log: `attempt` (the last), `offset`, `limit` in bytes, `file` narrow it."""
        answer = _mapping(self.document(job, "log", **which))
        return _row(LogPart, answer | {"data": b64decode(str(answer.get("data") or ""))})

    def stop(self, job: str, *, kill: bool = False) -> Told:
        """Ask it to stop, resumable; `kill`: at once."""
        verb = "kill" if kill else "stop"
        return _row(Told, self.connection.request("POST", _path(job, verb), None, STOP_S))

    def cancel(self, job: str) -> Told:
        """End it for good."""
        return _row(Told, self.connection.request("POST", _path(job, "cancel"), None, STOP_S))

    def resume(self, job: str) -> Told:
        """Put it into the queue again."""
        return _row(Told, self.connection.request("POST", _path(job, "resume")))

    def retry(self, job: str, items: Sequence[str] = ()) -> Told:
        """The same for one that failed or holds; `items` of a batch job get a clean slate."""
        body = {"items": list(items)} if items else {}
        return _row(Told, self.connection.request("POST", _path(job, "retry"), body))

    def remove(self, job: str) -> Told:
        """Delete it with its logs and copies."""
        return _row(Told, self.connection.request("DELETE", _path(job), None, STOP_S))

    def wait(self, job: str, limit_s: float) -> Waited:
        """Wait until it has ended, at most so long."""
        asked_s = max(0.0, min(limit_s, WAIT_S))
        path = f"{_path(job, 'wait')}?timeout_s={asked_s:.3f}"
        # Who has little time does not wait much longer for a daemon that hangs.
        answer_s = asked_s + min(ANSWER_S, max(LEAST_ANSWER_S, asked_s))
        return _row(Waited, self.connection.request("GET", path, None, answer_s))

    def groups(self) -> list[dict[str, Json]]:
        """The groups of jobs, and which are held."""
        return _list(self.connection.request("GET", "/v1/groups"), "groups")

    def release_group(self, name: str) -> dict[str, Json]:
        """Let a group that is held go on."""
        path = f"/v1/groups/{quote(name, safe='')}/release"
        return _mapping(self.connection.request("POST", path))

    def gpus(self) -> list[dict[str, Json]]:
        """The GPUs, and who holds them."""
        return _list(self.connection.request("GET", "/v1/gpus"), "gpus")

    def release_gpu(self, uuid: str) -> dict[str, Json]:
        """Use a GPU again that was set aside."""
        path = f"/v1/gpus/{quote(uuid, safe='')}/release"
        return _mapping(self.connection.request("POST", path))

    def log_stream(self, job: str, **which: str | int | None) -> "Iterator[Said]":
        """The job's output as it grows, over a connection of its own."""
        return self._stream(_path(job, "log", "stream"), which)

    def progress(self, job: str) -> "Iterator[Said]":
        """How far the job is, as it goes."""
        return self._stream(_path(job, "progress"), {})

    def happenings(self, **which: str | int | None) -> "Iterator[Said]":
        """What happens to jobs, from now on."""
        return self._stream("/v1/events", which)

    def _stream(self, path: str, which: Mapping[str, str | int | None]) -> "Iterator[Said]":
        given = {name: value for name, value in which.items() if value is not None}
        asked = path + (f"?{urlencode(given)}" if given else "")
        with self.connection.another() as connection:
            yield from connection.stream(asked)


def _path(job: str, *parts: str) -> str:
    # A name that is `..` would climb out of the route on its way.
    name = quote(job, safe="").replace(".", "%2E") if set(job) <= {"."} else quote(job, safe="")
    return "/".join(["/v1/jobs", name, *parts])


def _row(kind: type[RowT], answer: Json) -> RowT:
    try:
        return kind(**{one.name: answer[one.name] for one in fields(kind)})
    except (KeyError, TypeError) as error:
        raise _not_understood(answer) from error


def _list(answer: Json, key: str) -> list[dict[str, Json]]:
    found = answer.get(key) if isinstance(answer, dict) else answer
    if not isinstance(found, list):
        raise _not_understood(answer)
    return found


def _mapping(answer: Json) -> dict[str, Json]:
    if not isinstance(answer, dict):
        raise _not_understood(answer)
    return answer


def _not_understood(answer: Json) -> ClientError:
    return ClientError(
        f"the daemon's answer lacks what this program expects: {str(answer)[:200]}. "
        "Is it of the same version? See: supervise daemon status"
    )
