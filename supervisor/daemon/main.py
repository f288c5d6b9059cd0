"""Begins and ends the daemon: its lock, its sockets, its signals.

Owns the order of these. Ready is said when jobs are accepted and the runners of the daemon before
are found; what SIGTERM means to the jobs is `hosting`'s.
"""

import asyncio
import fcntl
import gc
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from supervisor.daemon.api.app import make_app
from supervisor.daemon.contracts import Launcher, LaunchFailed, ShelfUnavailable
from supervisor.daemon.daemon import Daemon, Parts
from supervisor.daemon.desk import load_late
from supervisor.daemon.gpus import GpuDesk
from supervisor.daemon.hosting import Hosting, Leaving
from supervisor.daemon.launch_session import SessionLauncher
from supervisor.daemon.launch_systemd import SystemdLauncher
from supervisor.daemon.metric_source import DaemonSource
from supervisor.daemon.metrics import Metrics
from supervisor.daemon.notify import Notifier, Watchdog
from supervisor.daemon.retention import FOR_EVER, Keep
from supervisor.daemon.serve import Doors, Server
from supervisor.daemon.shelf_folders import own_shelf
from supervisor.daemon.shelves import SystemShelves, UserShelves
from supervisor.host.lean import structlog
from supervisor.journal import Journal, JournalUnavailable, JournalUnusable
from supervisor.queue.plan import Capacity
from supervisor.queue.store import Queue
from supervisor.runner.exits import Exit

LOCK = "daemon.lock"
SWITCH_S = 0.0005
SYSTEM_STATE = Path("/var/lib/supervise")
EXTEND_EVERY_S = 5.0


class AlreadyServed(Exception):
    """Another daemon serves this state folder."""


@dataclass(frozen=True, slots=True)
class Options:
    """What `supervise daemon run` was told. None: find out. `doors`: where it listens."""

    state_dir: Path
    doors: Doors
    system: bool = False
    cpus: int | None = None
    memory_bytes: int | None = None
    launcher: str = "auto"
    keep: Keep = FOR_EVER


def run(options: Options) -> int:
    """Serve until asked to end; the exit code.

    Raises:
        AlreadyServed: another daemon has this state folder.
        QueueError, Refusal, OSError: it cannot begin; the message says why.
    """
    os.umask(0o077)
    # Shelves are read in threads; the event loop must not wait 5 ms for each of their turns.
    sys.setswitchinterval(SWITCH_S)
    options.state_dir.mkdir(mode=0o711 if options.system else 0o700, parents=True, exist_ok=True)
    own_shelf(options.state_dir)
    load_late()
    gc.freeze()  # the modules are here to stay: no collection need look at them again
    with _alone(options.state_dir):
        return asyncio.run(_serve(options))


async def _serve(options: Options) -> int:
    log = structlog.get_logger()
    launcher = await _launcher(options)
    if not options.system:  # those of other users are for their clerks to open
        _see_journal(options.state_dir)
    queue = Queue.open(options.state_dir)
    shelves = SystemShelves(options.state_dir) if options.system else UserShelves(options.state_dir)
    parts = Parts(
        options.state_dir,
        queue,
        shelves,
        launcher,
        GpuDesk(),
        _capacity(options),
        options.system,
        options.keep,
    )
    daemon = Daemon(parts)
    daemon.dispatch.hosting = hosting = Hosting(user=not options.system)
    notifier, asked = Notifier(), asyncio.Event()
    watchdog = Watchdog(notifier)
    metrics = Metrics(DaemonSource(daemon))
    with _asked_to_end(asked):
        server = Server(make_app(daemon, metrics.text), options.doors)
        try:
            # The sockets come first: who connects meanwhile waits instead of being refused.
            server.bind()
            await daemon.start()
            await metrics.begin()
            watchdog.start()
            await server.start()
            notifier.ready(f"{len(daemon.dispatch.runners)} jobs running")
            log.info("ready", state_dir=str(options.state_dir), launcher=launcher.name)
            await asked.wait()
            daemon.leave()
            leaving = await hosting.leaving()
            notifier.stopping()
            log.info("leaving", jobs=leaving.value, running=len(daemon.dispatch.runners))
            if leaving is Leaving.STOP:
                await _park(daemon, notifier)
        finally:
            await server.stop()
            watchdog.stop()
            await metrics.close()
            await daemon.close()
    return Exit.DONE


def _see_journal(state_dir: Path) -> None:
    """Refuse one that is damaged or of a newer version, before anything is changed."""
    try:
        journal = Journal.open_existing(state_dir)
    except JournalUnusable as error:
        raise ShelfUnavailable(str(error)) from error
    except JournalUnavailable:  # a full disk passes, and what runs wants to be found again
        return
    if journal is not None:
        journal.close()


async def _park(daemon: Daemon, notifier: Notifier) -> None:
    """Stop the jobs so that they can be resumed, and tell systemd that this takes its time."""
    parking = asyncio.create_task(daemon.park())
    while not parking.done():
        notifier.extend_timeout(2 * EXTEND_EVERY_S)
        await asyncio.wait({parking}, timeout=EXTEND_EVERY_S)
    parking.result()


async def _launcher(options: Options) -> Launcher:
    """Choose systemd's transient units where they can be had, else sessions of their own."""
    if options.launcher == "session":
        return SessionLauncher()
    systemd = SystemdLauncher(user=not options.system)
    why_not = await systemd.available()
    if why_not is None:
        return systemd
    if options.launcher == "systemd":
        raise LaunchFailed(f"--launcher systemd: {why_not}")
    if Hosting(user=not options.system).is_unit:  # sessions would end with this very unit
        raise LaunchFailed(f"runners cannot be units of their own: {why_not}")
    structlog.get_logger().info("runners are sessions of their own", why=why_not)
    return SessionLauncher()


def _capacity(options: Options) -> Capacity:
    cpus = options.cpus or len(os.sched_getaffinity(0))
    return Capacity(cpus, options.memory_bytes or psutil.virtual_memory().total)


@contextmanager
def _alone(state_dir: Path) -> Iterator[None]:
    """Be the only daemon of a state folder. A lock, so that nothing is ever stale."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(state_dir / LOCK, flags, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyServed(
                f"another daemon serves {state_dir}: see `supervise daemon status`"
            ) from None
        yield
    finally:
        os.close(fd)


@contextmanager
def _asked_to_end(asked: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, asked.set)
    try:
        yield
    finally:
        for number in numbers:
            with suppress(ValueError):
                loop.remove_signal_handler(number)
