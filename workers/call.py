"""Calls one function in this process and sends back what became of it.

Owns the child's half of `isolated_process`: run as `python call.py TASK_FD RESULT_FD DONE_FD` it
loads the call from the task file, and a forked child enters at `answer`. Unpickles what its parent,
the user's own program, wrote; the supervisor never imports this. Invariant: DONE_FD is signalled
only after the result file is complete, so a child that dies while it writes sent nothing.

Both files are anonymous memory (memfd): no pipe that could fill up, nothing that a grandchild which
keeps a descriptor could hold open.
"""

from __future__ import annotations

import faulthandler
import functools
import os
import pickle
import sys
import traceback
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

STDERR_FD = 2


class Channel(NamedTuple):
    """Where the result goes: a memory file, and an eventfd that says it is complete."""

    result_fd: int
    done_fd: int

    def send(self, kind: str, payload: Any) -> None:  # noqa: ANN401 -- any result
        """Write the result and say so. Raises what pickling raises; then nothing was sent."""
        with open(f"/proc/self/fd/{self.result_fd}", "r+b") as file:  # noqa: PTH123 -- a descriptor
            pickle.dump((kind, payload), file, protocol=pickle.HIGHEST_PROTOCOL)
        os.write(self.done_fd, (1).to_bytes(8, sys.byteorder))


def describe(error: BaseException) -> dict[str, Any]:
    """Return an exception as text, and as bytes where it can be pickled."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__ and trace.tb_next:
        trace = trace.tb_next  # our own frames tell nobody anything
    lines = traceback.format_exception(type(error), error, trace)
    try:
        message = str(error)
    except Exception:  # noqa: BLE001 -- a broken __str__ must not hide the error itself
        message = "(its message could not be made)"
    try:
        pickled = pickle.dumps(error)
    except Exception:  # noqa: BLE001 -- anything a user's exception does
        pickled = None
    kind = type(error)
    name = kind.__qualname__
    if kind.__module__ not in ("builtins", "__main__", "__mp_main__"):
        name = f"{kind.__module__}.{name}"
    return {"type_name": name, "message": message, "traceback": "".join(lines), "error": pickled}


def answer(call: Callable[[], object], channel: Channel) -> None:
    """Call, and send the value or the exception. SystemExit passes: the exit code is the answer."""
    pid = os.getpid()
    try:
        kind, payload = "value", call()
    except SystemExit:
        raise
    except BaseException as error:  # noqa: BLE001 -- all of it is the answer
        kind, payload = "raised", describe(error)
    if os.getpid() != pid:
        os._exit(0)  # a fork made by the function came back here as well; one answer is enough
    try:
        channel.send(kind, payload)
    except Exception as error:  # noqa: BLE001 -- whatever the value's pickling raised
        facts = describe(error)
        facts["message"] += f" (the return value, a {type(payload).__name__}, cannot be sent)"
        channel.send("raised", facts)


def load(task_fd: int) -> Callable[[], object]:
    """Return the call that the parent described."""
    with open(f"/proc/self/fd/{task_fd}", "rb") as file:  # noqa: PTH123 -- a descriptor
        preparation = pickle.load(file)  # noqa: S301 -- written by the parent, see above
        prepare(preparation)
        function, args, kwargs = pickle.load(file)  # noqa: S301 -- the same
    return functools.partial(function, *args, **kwargs)


def prepare(preparation: dict[str, Any]) -> None:
    """Make the parent's modules importable here, its __main__ included when the call needs it."""
    sys.path[:] = preparation.pop("sys_path")
    sys.argv[:] = preparation.pop("sys_argv")
    if not preparation:
        return
    # Only now: the path is the parent's own, and the import is half of the time of a start.
    from multiprocessing import process, spawn  # noqa: PLC0415 -- see above

    current = process.current_process()
    # Its own flag for "importing main", by which an unguarded script is found out.
    current._inheriting = True  # type: ignore[attr-defined]  # noqa: SLF001 -- see above
    try:
        spawn.prepare(preparation)
    finally:
        del current._inheriting  # type: ignore[attr-defined]  # noqa: SLF001 -- see above


def main(argv: list[str]) -> None:
    """Load, call, answer."""
    task_fd, result_fd, done_fd = (int(word) for word in argv[1:])
    for fd in (task_fd, result_fd, done_fd):
        os.set_inheritable(fd, False)  # noqa: FBT003 -- the name says what
    faulthandler.enable(file=STDERR_FD)  # a crash shows where

    def call() -> object:
        return load(task_fd)()  # inside, so that a task that cannot be loaded is an answer too

    answer(call, Channel(result_fd, done_fd))


if __name__ == "__main__":
    main(sys.argv)
