"""Hangs that wait, idle, for what never comes.

Children end by themselves after some minutes, so that a script which is run by hand leaves nothing.
"""

import atexit
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NoReturn

LONG_S = 300.0
FORK = get_context("fork")


def event() -> None:
    """Waits for an event that nobody sets."""
    threading.Event().wait()


def lock_order() -> None:
    """Two threads have one lock each and want the other's."""
    first, second = threading.Lock(), threading.Lock()
    both = threading.Barrier(2)

    def take(mine: threading.Lock, other: threading.Lock) -> None:
        with mine:
            both.wait()
            other.acquire()

    pairs = ((first, second), (second, first))
    threads = [threading.Thread(target=take, args=pair) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def fifo() -> None:
    """Reads from a FIFO that nobody writes to."""
    os.mkfifo("never")
    Path("never").read_bytes()


def silent_peer() -> None:
    """Waits for the answer of a peer that is connected and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        peer = FORK.Process(target=_accept_only, args=(listening,))
        peer.start()
        with socket.create_connection(listening.getsockname()) as connection:
            connection.recv(1)


def _accept_only(listening: socket.socket) -> None:
    connection, _ = listening.accept()
    with connection:
        time.sleep(LONG_S)


def full_pipe() -> None:
    """Waits for a child that waits for somebody to read what it prints."""
    flood = f"print('x' * {1 << 20})"
    with subprocess.Popen([sys.executable, "-c", flood], stdout=subprocess.PIPE) as child:
        child.wait()


def dead_loader() -> None:
    """Waits for the batch of a data loader that has died."""
    batches = FORK.Queue()
    loader = FORK.Process(target=os._exit, args=(1,))
    loader.start()
    batches.get()


def idle_loaders() -> None:
    """Sleeps for ever, with a pool of loaders that have nothing to do."""
    with FORK.Pool(2):
        time.sleep(1e6)


def file_lock() -> None:
    """Wants a file lock that another process never gives back."""
    mine, other = FORK.Pipe()
    holder = FORK.Process(target=_hold, args=(other,))
    holder.start()
    mine.recv_bytes()
    with Path("held.lock").open("w") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)


def _hold(ready: Connection) -> None:
    with Path("held.lock").open("w") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        ready.send_bytes(b"held")
        time.sleep(LONG_S)


def lock_file() -> None:
    """Looks again and again whether a lock file that a dead process left is gone."""
    Path("left.lock").touch()
    while Path("left.lock").exists():
        time.sleep(0.1)


def sleeping_child() -> None:
    """Waits for a child that sleeps."""
    os.waitpid(os.posix_spawnp("sleep", ["sleep", f"{LONG_S:.0f}"], os.environ), 0)


def watchdog_thread() -> None:
    """Waits; a thread of a library looks at the clock ten times a second."""
    threading.Thread(target=_look, daemon=True).start()
    threading.Event().wait()


def _look() -> NoReturn:
    while True:
        sum(range(10_000))
        time.sleep(0.1)


def monitor_thread() -> None:
    """Waits; a thread goes on writing what the machine does, as experiment trackers do."""
    threading.Thread(target=_record, daemon=True).start()
    threading.Event().wait()


def _record() -> NoReturn:
    with Path("monitor.jsonl").open("w") as file:
        while True:
            facts = [Path(f"/proc/{name}").read_text() for name in ("stat", "meminfo", "self/stat")]
            file.write(f"{time.time()} {sum(map(len, facts))}\n")
            file.flush()
            time.sleep(0.5)


def deaf() -> None:
    """Waits, and ignores the signals that ask it to stop."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    threading.Event().wait()


def after_done() -> None:
    """Gets to its last line, and hangs on the way out."""
    atexit.register(event)
