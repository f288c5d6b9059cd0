"""Imports the heavy modules once and forks launchers: run as `python zygote.py CONTROL_FD PADDING`.

Owns the imports, the proof that a fork is safe, and the fork. Never touches CUDA, never starts a
thread, never waits for what it forked: a launcher is handed over to the runner, so it outlives this
process. Invariant: before every fork this process has one thread and no CUDA, or the runner is told
in words why not.

The runner is a subreaper: a process in between forks the launcher and ends, and the launcher is the
runner's child from then on. It speaks launch.py's protocol, with launch.py's code, and then becomes
the command: by running it here (warm.py) where that is faithful, else by exec.
"""

from __future__ import annotations

import gc
import importlib
import importlib.machinery
import json
import os
import socket
import sys
import time
import traceback

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import ModuleType
    from typing import NoReturn

    Fields = Mapping[bytes, Sequence[bytes]]

HERE = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 -- pathlib is slow to import
ROOT = os.path.dirname(HERE)  # noqa: PTH120 -- the same; the built-in workers are found from here
PACKET_BYTES = 1 << 17
REASON_CHARS = 2000
ADOPTED_S = 5.0  # the process in between has ended long before that
PAUSE_S = 0.0002
EXIT_NOT_STARTED = 127


class CannotForkError(Exception):
    """A fork would not be safe, or did not work: the reason in words."""


class Begin(BaseException):
    """Leaves the launcher's code, in the child: (program)."""


def sibling(name: str) -> ModuleType:
    """Load a file of this folder under a name that no module of the user's has."""
    module = type(sys)(f"supervise {name}")
    file = os.path.join(HERE, name)  # noqa: PTH118 -- see above
    module.__file__ = file
    importlib.machinery.SourceFileLoader(module.__name__, file).exec_module(module)
    return module


class Zygote:
    """The process that was started; after a fork, in the child, the launcher."""

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.early = dict(os.environ)
        self.prefix: list[str] = []
        self.inherited: set[int] = set()
        self.protocol = sibling("protocol.py")
        self.launch = sibling("launch.py")
        self.warm = sibling("warm.py")
        self.calm = sibling("calm.py")
        self.alone = sibling("alone.py")
        self.pools = self.calm.Pools()
        self.drawn: int | None = None

    def serve(self) -> object:
        """Do what the runner asks for. Returns in a forked child alone, with what to run."""
        setup, _ = self.receive()
        try:
            self.prepare(setup)
        except CannotForkError as error:
            self.answer(self.protocol.ZYGOTE_REFUSED, str(error).encode())
        else:
            self.answer(self.protocol.ZYGOTE_READY, b"")
        while True:
            request, fds = self.receive()
            number = request[self.protocol.ZYGOTE_FORK][0]
            try:
                self.check("since the last fork")
                self.fork(request, fds)
            except CannotForkError as error:
                self.answer(self.protocol.ZYGOTE_REFUSED, str(error).encode(), number)
            except Begin as begin:
                return begin.args[0]
            else:
                self.answer(self.protocol.ZYGOTE_FORKED, b"", number)
            finally:
                for fd in fds:
                    os.close(fd)

    def receive(self) -> tuple[Fields, list[int]]:
        """Return the next message; leave when the runner has hung up."""
        packet, fds, _, _ = socket.recv_fds(self.control, PACKET_BYTES, 2)
        if not packet:
            os._exit(0)
        found: dict[bytes, list[bytes]] = {}
        for name, value in self.protocol.decode(packet):
            found.setdefault(name, []).append(value)
        for fd in fds:
            os.set_inheritable(fd, False)  # noqa: FBT003 -- it takes nothing else
        return found, list(fds)

    def answer(self, name: bytes, value: bytes, number: bytes = b"") -> None:
        """Tell the runner; one that is gone needs no answer."""
        told = value.replace(b"\0", b" ")[:REASON_CHARS]
        fields = [(name, told), (self.protocol.ZYGOTE_FORK, number)]
        try:
            self.control.send(self.protocol.encode(fields))
        except OSError:
            os._exit(0)

    def prepare(self, setup: Fields) -> None:
        """Import the modules and build what the children share; leave no trace of how."""
        protocol = self.protocol
        self.prefix = [os.fsdecode(word) for word in setup.get(protocol.ZYGOTE_PREFIX, ())]
        first = [os.fsdecode(path) for path in setup.get(protocol.ZYGOTE_PATH0, ())]
        sys.path[:] = [*first, *sys.path, ROOT]
        os.environ.update(self.calm.HELD)
        sys.meta_path.insert(0, self.calm.AfterImport("torch", self.torch_came))
        try:
            for name in setup.get(protocol.ZYGOTE_MODULE, ()):
                self.load(name.decode())
            self.pools.hold()
            for entry in setup.get(protocol.ZYGOTE_PRELOAD, ()):
                self.preload(entry.decode(), setup[protocol.ZYGOTE_ARGS][0])
        finally:
            for path in first:
                sys.path.remove(path)
            del sys.path[len(sys.path) - 1 - sys.path[::-1].index(ROOT)]
            sys.meta_path[:] = [
                finder for finder in sys.meta_path if not isinstance(finder, self.calm.AfterImport)
            ]
        gc.collect()
        gc.freeze()  # or the first collection in each child would copy every page

    def load(self, name: str) -> None:
        """Import a module, and see that a fork is safe after it."""
        try:
            importlib.import_module(name)
        except BaseException as error:
            raise CannotForkError(f"cannot import {name!r}: {_words(error)}") from error
        self.check(f"by importing {name!r}")

    def torch_came(self) -> None:
        """At the end of its import: before anything is computed, or seeded."""
        self.pools.hold()
        self.drawn = self.warm.torch_seed()

    def preload(self, entry: str, args: bytes) -> None:
        """Have a class build, on the CPU, what its instances in the children will share."""
        module, _, name = entry.partition(":")
        self.load(module)
        build = getattr(getattr(sys.modules[module], name, None), "preload", None)
        if build is None:
            return
        try:
            build(**json.loads(args))
        except BaseException as error:
            raise CannotForkError(f"{entry}.preload failed: {_words(error)}") from error
        self.check(f"by {entry}.preload")

    def check(self, when: str) -> None:
        """Raise CannotForkError when a forked child could not work."""
        if reason := self.alone.unsafe():
            raise CannotForkError(f"{reason} {when}")

    def fork(self, request: Fields, fds: list[int]) -> None:
        """Fork a launcher that is nobody's child here; raises Begin in it."""
        number = [int(one) for one in request.get(self.protocol.ZYGOTE_CHANNEL, ())]
        if (
            number
            and number[0] not in {*fds, self.control.fileno()}
            and self.alone.is_open(number[0])
        ):
            raise CannotForkError(f"an imported module holds descriptor {number[0]}, the channel's")
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        try:
            between = os.fork()
        except OSError as error:
            raise CannotForkError(f"cannot fork: {error.strerror}") from error
        if between:
            if os.waitpid(between, 0)[1]:
                raise CannotForkError("cannot fork: the process in between failed")
            return
        try:
            if os.fork():
                os._exit(0)
        except OSError:
            os._exit(1)
        try:
            self.become_launcher(request, fds, number)
        except Exception:  # noqa: BLE001 -- into the log; it must never serve as a second zygote
            traceback.print_exc()
            os._exit(EXIT_NOT_STARTED)

    def become_launcher(self, request: Fields, fds: list[int], number: list[int]) -> NoReturn:
        """In the child: wait to be the runner's, say so, and do what every launcher does."""
        protocol = self.protocol
        parent = int(request[protocol.ZYGOTE_PARENT][0])
        os.setsid()
        self.control.close()
        if not self.mark(request[protocol.ZYGOTE_CHAIN][0]):
            raise RuntimeError("there is no room for the mark of a warm worker")
        if not _until_child_of(parent):
            os._exit(EXIT_NOT_STARTED)
        wait_fd = os.dup(fds[0])  # not the channel's number: that one is taken, or still free
        if number:
            if wait_fd == number[0]:
                wait_fd = os.dup(wait_fd)
            os.dup2(fds[1], number[0])
            os.set_inheritable(number[0], True)  # noqa: FBT003 -- see above
        for fd in {*fds}.difference(number):
            os.close(fd)
        fds.clear()
        self.inherited = self.alone.descriptors() - {wait_fd}
        os.write(wait_fd, protocol.encode([(protocol.ZYGOTE_PID, b"%d" % os.getpid())]))
        self.launch.main(wait_fd, parent, self.become)
        raise AssertionError("a launcher never returns")

    def mark(self, chain: bytes) -> bool:
        """Show to whom this process belongs."""
        return bool(self.warm.rewrite_mark(self.protocol.ENV_TREE.encode(), chain))

    def become(self, argv: list[bytes], env: dict[bytes, bytes]) -> None:
        """Have the command run here if that is the same; else execute it."""
        words = [os.fsdecode(word) for word in argv]
        variables = {os.fsdecode(name): os.fsdecode(value) for name, value in env.items()}
        chain = env.get(self.protocol.ENV_TREE.encode(), b"")
        program = self.warm.program_of(words, self.prefix, variables, self.early)
        if program is None or not self.mark(chain):
            self.launch.become(argv, env)
        for opened in (
            self.alone.descriptors() - self.inherited
        ):  # the socket: its end says "the worker runs"
            os.close(opened)
        self.warm.rewrite_title(argv)
        self.warm.put_on(variables)
        self.warm.restore_signals()
        self.warm.draw_again(self.drawn)
        self.pools.release(variables)
        raise Begin(program)


def _words(error: BaseException) -> str:
    traceback.print_exception(type(error), error, error.__traceback__)
    sys.stderr.flush()
    return f"{type(error).__name__}: {error}"


def _until_child_of(parent: int) -> bool:
    deadline = time.monotonic() + ADOPTED_S
    while os.getppid() != parent:
        if time.monotonic() > deadline:
            return False
        time.sleep(PAUSE_S)
    return True


def main() -> None:
    """Serve; in a forked child, run the program: with nothing of ours left on the stack."""
    if sys.path and sys.path[0] == HERE:
        del sys.path[0]  # or our files would hide modules of the same names
    fd = int(sys.argv[1])
    os.set_inheritable(fd, False)  # noqa: FBT003 -- see above
    zygote = Zygote(socket.socket(fileno=fd))
    program = zygote.serve()
    zygote.warm.run(program)


if __name__ == "__main__":
    main()
