"""A service in the place of the daemon, which says to systemd what the daemon says.

It answers one JSON line on its socket for each question: `who`, `freeze`, or Python to evaluate,
which shows what the unit's sandbox lets through.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from supervisor.daemon.notify import Notifier, Watchdog, listen_fds

SLOW = Path("/run/supervise/slow")
SAVED = Path("/run/supervise/saved")
VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID")


async def serve() -> None:
    """Serve until SIGTERM."""
    notifier = Notifier()
    watchdog = Watchdog(notifier)
    given = listen_fds()
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked.set)

    def who() -> dict[str, object]:
        left = [name for name in VARIABLES if name in os.environ]
        inherited = [os.get_inheritable(one.sock.fileno()) for one in given]
        names = [one.name for one in given]
        return {"pid": os.getpid(), "names": names, "left": left, "inherited": inherited}

    def answer(question: str) -> object:
        if question == "who":
            return who()
        if question == "freeze":
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGABRT})
            while True:  # the loop stands; the process lives, and is deaf to what would end it
                signal.pause()
        try:
            return eval(question, {"os": os, "run": run, "Path": Path})  # noqa: S307 - the test's own words
        except OSError as error:
            return error.strerror

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        question = (await reader.readline()).decode().strip()
        writer.write(json.dumps(answer(question)).encode() + b"\n")
        await writer.drain()
        writer.close()

    servers = [await asyncio.start_unix_server(talk, sock=one.sock) for one in given]
    notifier.ready(f"serving on\n{len(servers)} sockets")
    watchdog.start()
    await asked.wait()
    notifier.stopping("saving")
    notifier.extend_timeout(60)
    await save()
    watchdog.stop()


async def save() -> None:
    """Take as long as the test wants: until there is a file."""
    loop = asyncio.get_running_loop()
    ended = loop.create_future()

    def look() -> None:
        if SLOW.exists() and not SAVED.exists():
            loop.call_later(0.01, look)
        else:
            ended.set_result(None)

    look()
    await ended


def run(*words: str, **options: object) -> list[object]:
    """Run a command from within the sandbox: its exit code, and all that it printed."""
    done = subprocess.run(words, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]  # the test knows
    return [done.returncode, done.stdout + done.stderr]


if __name__ == "__main__":
    asyncio.run(serve())
