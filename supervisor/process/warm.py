"""Which commands can be run by a process that was forked for them, and what that depends on.

Owns reading a Python command line as far as the interpreter itself reads it; starts nothing.
Invariant: a command for which `warm_reason` says None begins with the words of `prefix_of`.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from workers.protocol import WORKERS_FILE

_PYTHON = re.compile(r"python(3(\.\d+)?)?")
# What changes the interpreter as a whole, and therefore goes to the zygote, too.
_FLAGS = frozenset({"-B", "-E", "-I", "-O", "-OO", "-P", "-S", "-b", "-bb", "-q", "-s", "-u", "-v"})
_FLAGS_WITH_WORD = ("-W", "-X")


def prefix_of(argv: Sequence[str]) -> tuple[str, ...]:
    """Return the interpreter and its flags: what a command shares with the zygote it came from."""
    at = 1
    while at < len(argv):
        if argv[at] in _FLAGS_WITH_WORD and at + 1 < len(argv):
            at += 2
        elif argv[at] in _FLAGS or argv[at].startswith(_FLAGS_WITH_WORD):
            at += 1
        else:
            break
    return tuple(argv[:at])


def path0_of(argv: Sequence[str], cwd: Path | str | None) -> str | None:
    """Return where the program's own modules are: what the interpreter puts first on its path.

    Our own workers are run by their file, and find modules as `python -m` does.
    """
    prefix = prefix_of(argv)
    if {"-I", "-P"}.intersection(prefix):
        return None
    folder = Path(cwd or "").absolute()
    if len(argv) == len(prefix) or argv[len(prefix)] in {"-m", "-c", WORKERS_FILE}:
        return str(folder)
    return str((folder / argv[len(prefix)]).resolve().parent)


def warm_reason(argv: Sequence[str], python: str | None = None) -> str | None:
    """Return why this command cannot be run warm, in words; None when it can.

    `python` is the job's interpreter, where that is no word like `python3`.
    """
    program = argv[0]
    if program != python and not _PYTHON.fullmatch(Path(program).name):
        return f"its program is {program!r}, not a Python interpreter"
    rest = argv[len(prefix_of(argv)) :]
    if not rest:
        return "it names no script, module or code to run"
    if rest[0] in {"-m", "-c"}:
        return None if len(rest) > 1 else f"nothing follows its {rest[0]}"
    if rest[0].startswith("-"):
        return f"the interpreter's flag {rest[0]!r} needs a fresh one"
    return None
