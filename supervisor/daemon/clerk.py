"""A clerk: the process that answers questions about one user's jobs, with that user's rights.

`python -m supervisor.daemon.clerk SHELF PARENT_PID`, its standard input a socket of the daemon's.
Lines of JSON both ways: `{"id", "question", "arguments"}` comes, `{"id", "answer"}` or
`{"id", "refused": {"kind", "message"}}` goes, after a first line `{"hello": FORMAT}`. Owns this
talk, and nothing of what is asked. It was the user's from its first instruction on, so that nothing
that lies in their folder ever meets root's rights. It ends with the daemon: by the end of the
socket, or, where it hangs, by the kernel.
"""

import ctypes
import gc
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from supervisor.daemon.contracts import Json, Refusal, ShelfUnavailable

FORMAT = 1
LONGEST_LINE = 16 * 1024 * 1024
LONGEST_MESSAGE = 64 * 1024
PR_SET_PDEATHSIG = 1  # linux/prctl.h
USAGE = 2


def serve(asking: BinaryIO, telling: BinaryIO, shelf: Path) -> None:
    """Answer until there is nobody to ask, or somebody says what is no question."""
    from supervisor.daemon.desk import Desk  # noqa: PLC0415 - the daemon imports none of it

    desk = Desk(shelf)
    _tell(telling, {"hello": FORMAT})
    while line := asking.readline(LONGEST_LINE + 1):
        try:
            asked = json.loads(line)
            number, question, arguments = asked["id"], asked["question"], asked["arguments"]
        except (ValueError, TypeError, KeyError, RecursionError):
            break
        _tell(telling, {"id": number} | _answered(desk.answer, question, arguments))
    desk.close()


def _answered(
    answer: Callable[[str, Json], Json], question: str, arguments: Json
) -> dict[str, Json]:
    try:
        return {"answer": answer(question, arguments)}
    except Refusal as error:
        message = str(error)[:LONGEST_MESSAGE].encode(errors="replace").decode()
        return {"refused": {"kind": type(error).__name__, "message": message}}


def _tell(telling: BinaryIO, told: dict[str, Json]) -> None:
    # Not as escapes: half a character would hide in them.
    line = json.dumps(told, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
    if len(line) > LONGEST_LINE:
        message = f"the answer has {len(line)} bytes, more than {LONGEST_LINE}: ask for a part"
        refused = {"kind": ShelfUnavailable.__name__, "message": message}
        line = json.dumps({"id": told["id"], "refused": refused}).encode() + b"\n"
    telling.write(line)
    telling.flush()


def main(arguments: list[str]) -> int:
    """Serve the shelf that is named."""
    match arguments:
        case [shelf, parent] if parent.isdecimal():
            pass
        case _:
            sys.stderr.write("usage: python -m supervisor.daemon.clerk SHELF PARENT_PID\n")
            return USAGE
    # Also a clerk that is stopped, or hangs on a disk, is not to outlive the daemon.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != int(parent):
        return USAGE
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(fileno=0) as daemon:
        asking, telling = daemon.makefile("rb"), daemon.makefile("wb")
        gc.freeze()
        try:
            serve(asking, telling, Path(shelf))
        except (BrokenPipeError, ConnectionResetError):  # the daemon hung up while we answered
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
