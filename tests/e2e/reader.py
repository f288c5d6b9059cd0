"""`supervise show`, `ps`, `events` … of a test that looks again and again what became of a job.

Owns one interpreter that has imported these verbs and forks a process for each question: it is the
real command line in a process of its own, less the start that would keep the runner off the CPU
each time somebody looks. Never used for what a test is about; that it asks as a person would.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
from importlib import import_module

VERBS = ("ps", "show", "events", "gpus")


class Reader:
    """The asking side: starts its interpreter with the first question."""

    def __init__(self) -> None:
        self._forker: subprocess.Popen[str] | None = None
        self._one_at_a_time = threading.Lock()

    def ask(self, words: list[str]) -> str:
        """Return what `supervise` prints.

        Raises:
            subprocess.CalledProcessError: its exit code is not 0.
        """
        with self._one_at_a_time, tempfile.TemporaryDirectory() as folder:
            forker = self._forker = self._forker or subprocess.Popen(
                [sys.executable, __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            assert forker.stdin is not None
            assert forker.stdout is not None
            question = {"words": words, "env": dict(os.environ), "into": folder}
            forker.stdin.write(json.dumps(question) + "\n")
            forker.stdin.flush()
            code = int(forker.stdout.readline())
            out, err = (_content(folder, name) for name in ("out", "err"))
        if code != 0:
            raise subprocess.CalledProcessError(code, words, out, err)
        return out

    def close(self) -> None:
        """End the interpreter, if there is one; the next question starts another."""
        if self._forker is not None:
            self._forker.communicate()
            self._forker = None


def _content(folder: str, name: str) -> str:
    with open(os.path.join(folder, name), encoding="utf-8") as file:  # noqa: PTH118, PTH123 - short
        return file.read()


def serve() -> None:
    """Answer until nobody can ask any more: one question a line, one exit code a line."""
    for verb in VERBS:
        import_module(f"supervisor.cli.{verb}")
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            answer(**json.loads(line))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201 - the answer


def answer(words: list[str], env: dict[str, str], into: str) -> None:
    """Become `supervise`: it leaves by SystemExit, as it always does."""
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    for fd, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{into}/{name}", os.O_WRONLY | os.O_CREAT, 0o600), fd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["supervise", *words]
    import_module("supervisor.cli.main").main()


if __name__ == "__main__":
    serve()
