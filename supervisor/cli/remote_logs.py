"""`supervise logs` of a job that only the daemon may read.

Owns the copying of its logs, byte for byte and in parts, and following them over the daemon's
restarts. Invariant: memory stays flat, except for `--json`, whose lines are a document.
"""

import json
import sys
import time
from base64 import b64decode
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from supervisor.cli.remote import Far
from supervisor.cli.titles import title
from supervisor.client.connection import END
from supervisor.client.errors import ClientError, DaemonGone, NoDaemon
from supervisor.journal import AttemptRecord
from supervisor.views.plain import printable

if TYPE_CHECKING:
    from supervisor.cli.logs import Asked
    from supervisor.client.streams import Said

PART = 256 * 1024
RETURN_S = 60.0  # for a daemon that is being restarted
KNOCK_S = 0.25


def parts(far: Far, number: int | None, offset: int = 0, file: str = "worker") -> Iterator[bytes]:
    """What is there of a log now, behind `offset`."""
    end: int | None = None
    while end is None or offset < end:
        part = far.source.daemon.log(
            far.record.id, attempt=number, offset=offset, limit=PART, file=file
        )
        # Up to where it ended when we began: a worker that prints fast must not keep us here.
        end = part.size if end is None else end
        if not part.data:
            return
        offset = part.next
        yield part.data


def tail(far: Far, number: int | None, lines: int | None, file: str = "worker") -> int:
    """Where the last `lines` lines of a log begin; 0 for None and for a log with fewer."""
    if lines is None:
        return 0
    daemon, job = far.source.daemon, far.record.id
    at = end = daemon.log(job, attempt=number, limit=0, file=file).size
    while at > 0 and lines:
        start = max(0, at - PART)
        data = daemon.log(job, attempt=number, offset=start, limit=at - start, file=file).data
        # The newline that ends the log ends its last line; it does not begin another.
        stop = len(data) - 1 if at == end else len(data)
        while lines and (found := data.rfind(b"\n", 0, stop)) >= 0:
            lines -= 1
            stop = found
            if not lines:
                return start + found + 1
        at = start
    return 0 if lines else end


def texts(far: Far, number: int | None, lines: int | None, file: str = "worker") -> list[str]:
    """The lines of a log, or its last ones."""
    data = b"".join(parts(far, number, tail(far, number, lines, file), file))
    return (
        [one.decode(errors="replace").rstrip("\r") for one in data.removesuffix(b"\n").split(b"\n")]
        if data
        else []
    )


def show(far: Far, attempts: Sequence[AttemptRecord], asked: "Asked") -> None:
    """Print the logs of these attempts; go on with what follows, if that is asked for."""
    place = _Place(far)
    for one in attempts:
        place.begin(one, aside=False, titled=asked.every)
        place.copy_what_is_there(asked.lines)
    if asked.following:
        place.follow(only=asked.number is not None)


def document(far: Far, number: int, lines: int | None) -> str:
    """`logs --json` of one attempt; where its owner's files are is not told."""
    told = {"attempt": number, "path": None, "lines": texts(far, number, lines)}
    return json.dumps(told, ensure_ascii=False, indent=1)


class _Place:
    """How far a job's logs have been copied."""

    def __init__(self, far: Far) -> None:
        self._far = far
        self._number = 0
        self._offset = 0
        self._open_line = False

    def begin(self, one: AttemptRecord, *, aside: bool, titled: bool = True) -> None:
        """Go on with another attempt."""
        if titled:
            self._tell(title(one), aside=aside)
        self._number, self._offset = one.number, 0

    def copy_what_is_there(self, lines: int | None) -> None:
        """Copy the log as it is now, or its last lines."""
        self._offset = tail(self._far, self._number, lines)
        for data in parts(self._far, self._number, self._offset):
            self._write(data)
            self._offset += len(data)

    def follow(self, *, only: bool) -> None:
        """Copy what is printed from here on, and by the next attempts; `only` ends with this one.

        A daemon that goes is asked again when it is back; then nothing is missed and nothing comes
        twice.
        """
        give_up_at = time.monotonic() + RETURN_S
        while True:
            try:
                for said in self._said(only=only):
                    self._take(said, only=only)
                    give_up_at = time.monotonic() + RETURN_S
            except (DaemonGone, NoDaemon):
                if time.monotonic() >= give_up_at:
                    raise
                time.sleep(KNOCK_S)
            else:
                return

    def _said(self, *, only: bool) -> "Iterator[Said]":
        which: dict[str, int | str | None] = {"only": "true"} if only else {}
        if self._number:
            which |= {"attempt": self._number, "offset": self._offset}
        return self._far.source.daemon.log_stream(self._far.record.id, **which)

    def _take(self, said: "Said", *, only: bool) -> None:
        told = said.data
        if said.event == "attempt" and told["attempt"] != self._number:
            attempts = self._far.source.fresh().attempts()
            self.begin(next(one for one in attempts if one.number == told["attempt"]), aside=True)
        elif said.event == "log":
            self._write(b64decode(told["data"]) if "data" in told else told["text"].encode())
            self._offset = told["next"]
        elif said.event == "error":
            raise ClientError(str(told.get("message")))
        elif said.event == END and not only:
            why = printable(self._far.source.fresh().why)
            more = f": {why}" if why else ""
            self._tell(f"==> {self._far.record.id} is {told['state']}{more} <==", aside=True)

    def _write(self, data: bytes) -> None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        self._open_line = not data.endswith(b"\n")

    def _tell(self, line: str, *, aside: bool) -> None:
        """Tell something that is not the worker's, and keep lines of two attempts apart."""
        if self._open_line:
            click.echo()
            self._open_line = False
        click.echo(line, err=aside)
        sys.stdout.flush()
