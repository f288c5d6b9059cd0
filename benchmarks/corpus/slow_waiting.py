"""Slow phases that wait, talk or receive, and those that others make slow."""

import socket
import time
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path

from benchmarks.corpus.signs import HEARTBEAT_S, WORKING_S, say, turns

CHUNK = 64 << 10
GAPS = (0.2, 0.8, 0.4, 0.85, 0.1, 0.7)  # of a heartbeat: two in a row would be too long


def sparse_logger() -> None:
    """Prints a line now and then, never in the same rhythm, and sleeps in between."""
    for gap in GAPS:
        time.sleep(gap * HEARTBEAT_S)
        say(f"still at it, {gap}")


def progress_bar() -> None:
    """Draws a bar over itself; for three heartbeats there is no end of a line."""
    for number in turns(WORKING_S, every_s=1.0):
        say(f"\r{number}/9 [{number * '#'}]", end="")
    say("")


def rest() -> None:
    """Idles for less than a heartbeat; it is for others to make that long."""
    for _ in turns(0.6 * HEARTBEAT_S, every_s=0.2):
        pass


def chatter() -> None:
    """Keeps talking; it is the runner that does not listen."""
    for number in turns(WORKING_S + HEARTBEAT_S, every_s=0.5):
        say(f"validated batch {number}")


def download_to_file() -> None:
    """Downloads at about 1 MB/s into a file."""
    with Path("download.tmp").open("wb") as file:
        file.writelines(_chunks())


def download_to_memory() -> None:
    """Downloads at about 1 MB/s into memory."""
    b"".join(list(_chunks()))


def _chunks() -> Iterator[bytes]:
    listening = socket.create_server(("127.0.0.1", 0))
    server = get_context("fork").Process(target=_serve, args=(listening,))
    server.start()
    with listening, socket.create_connection(listening.getsockname()) as connection:
        while chunk := connection.recv(CHUNK):
            yield chunk
    server.join()


def _serve(listening: socket.socket) -> None:
    connection, _ = listening.accept()
    with connection:
        for _ in turns(WORKING_S, every_s=0.06):
            connection.sendall(b"\1" * CHUNK)
