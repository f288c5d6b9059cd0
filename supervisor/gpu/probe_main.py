"""The probe: a child process that asks NVML, because a question to the driver may never return.

Owns the only process of the supervisor that loads NVIDIA's library. One thread answers requests, in
order; another waits for GPU events and reports them at once. Never decides anything, and never
outlives its parent: it ends when the socket does, and the kernel kills it when the parent dies.
"""

import contextlib
import ctypes
import mmap
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

from supervisor.core.gpu import GpuTrouble
from supervisor.gpu import wire
from supervisor.gpu.model import Inventory

PR_SET_PDEATHSIG = 1

Answer = Callable[..., Any]


def main(arguments: list[str]) -> int:
    """Serve until the parent is gone: `SOCKET_FD NOTE_FD PARENT_PID`."""
    socket_fd, note_fd, parent = map(int, arguments)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        return 1
    note = mmap.mmap(note_fd, wire.NOTE_BYTES)
    os.close(note_fd)

    def noted(function: str, uuid: str) -> None:
        note[:] = f"{function} {uuid}".encode()[: wire.NOTE_BYTES].ljust(wire.NOTE_BYTES, b"\0")

    with socket.socket(fileno=socket_fd) as stream, stream.makefile("rb") as incoming:
        outgoing = Outgoing(stream)
        answers = _answers(noted, outgoing.trouble)
        # A parent that has gone away needs no answer.
        with contextlib.suppress(ConnectionError):
            while request := _next(incoming.read):
                outgoing.send(_answered(answers, request))
    return 0


class Outgoing:
    """The sending half of the socket, shared by both threads."""

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def send(self, message: dict[str, Any]) -> None:
        """Send one message whole."""
        with self._lock:
            self._stream.sendall(wire.frame(message))

    def trouble(self, trouble: GpuTrouble) -> None:
        """Send a trouble, unasked."""
        with contextlib.suppress(OSError):  # the other thread notices that the parent is gone
            self.send({"trouble": wire.pack(trouble)})


def _answers(
    noted: Callable[[str, str], None], push: Callable[[GpuTrouble], None]
) -> dict[str, Answer]:
    """Return what can be asked; without NVIDIA's binding everything has the same answer."""
    try:
        # Imported here: a missing package is an answer, not a crash.
        from supervisor.gpu import survey  # noqa: PLC0415 -- see above
        from supervisor.gpu.health import Health  # noqa: PLC0415 -- see above
        from supervisor.gpu.nvml import Nvml  # noqa: PLC0415 -- see above
    except ImportError as error:
        problem = f"NVML: the Python package nvidia-ml-py cannot be imported: {error}"
        return {
            "driver": lambda: [wire.pack(Inventory("", (), problem)), 0],
            "gpu": lambda _: wire.pack(Inventory("", (), problem)),
            "read": lambda uuids: [[uuid, *[None] * 7, [problem]] for uuid in uuids],
            "watch": lambda _: [problem],
        }
    health = Health(push)
    nvml = Nvml(noted, health.lost)
    # Its own: what that thread asks must not hide what the other one hangs in.
    beside = Nvml(lambda *_: None, health.lost)

    def watch(uuids: list[str]) -> list[str]:
        problems = health.watch(nvml, uuids)
        if not watching.is_alive():
            watching.start()
        return problems

    watching = threading.Thread(target=health.run, args=(beside,), daemon=True, name="events")
    return {
        "driver": lambda: wire.pack(survey.driver(nvml)),
        "gpu": lambda index: wire.pack(survey.listed(nvml, index)),
        "read": lambda uuids: wire.pack(survey.read(nvml, uuids)),
        "watch": watch,
    }


def _next(read: Callable[[int], bytes]) -> dict[str, Any] | None:
    """Return the next request; None when the parent is gone."""
    header = read(wire.HEADER.size)
    if len(header) < wire.HEADER.size:
        return None
    size = wire.length(header)
    body = read(size)
    return wire.message(body) if len(body) == size else None


def _answered(answers: dict[str, Answer], request: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"id": request["id"], "answer": answers[request["do"]](*request["with"])}
    except Exception as error:  # noqa: BLE001 -- the parent is told, whatever it is
        return {"id": request.get("id"), "failed": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
