"""The worker of the restart benchmark: says that it lives, then waits to be killed.

Its first act is to look at the clock. It ends with 0 when nobody listens any more, so a benchmark
that is killed leaves no worker behind.
"""

import time

BORN_NS = time.monotonic_ns()

import os  # noqa: E402 - after the clock
import select  # noqa: E402 - after the clock
import sys  # noqa: E402 - after the clock


def main(pipe: str, name: str) -> None:
    """Report to the pipe, and live until it has no reader."""
    fd = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    os.write(fd, f"{name} {os.getpid()} {BORN_NS}\n".encode())
    listener = select.poll()
    listener.register(fd, 0)  # POLLERR alone: the last reader is gone
    listener.poll()


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except OSError:  # no reader from the start
        sys.exit(0)
