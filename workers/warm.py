"""Runs a Python command in a process that was forked for it, as a fresh interpreter would.

Owns what the fork has to undo, and the few things an interpreter does between its start and the
first line of the program. Never runs what it could not run faithfully: for that, `program_of` says
None, and the caller executes the command for real. Invariant: what the program does to its process
(exit code, traceback, exit handlers, files it never closed) is left to the interpreter itself: an
exception or a SystemExit leaves this module, and the interpreter ends as it always does.
"""

from __future__ import annotations

import ctypes
import faulthandler
import importlib
import os
import signal
import stat
import sys
from contextlib import suppress
from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

# Read by interpreter and libraries when they are loaded: a command for which one of these differs
# from what the zygote was started with needs a process of its own.
READ_EARLY = (
    "PYTHON", "LD_", "GLIBC_", "MALLOC_", "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "GOTO_",
    "TORCH", "PYTORCH", "NUMEXPR_",
)  # fmt: skip
PR_SET_MM, PR_SET_MM_ARG_END = 35, 9  # linux/prctl.h
ARG_START, ENV_START, ENV_END = 45, 47, 48  # proc_pid_stat(5), counted from behind the name


class Program(NamedTuple):
    """A command that can be run here. `kind`: "script", "-m" or "-c"; `what`: file, module, code.

    `argv`: what the program sees as its own words; `words`: all of the command.
    """

    kind: str
    what: str
    argv: list[str]
    words: list[str]


def program_of(
    argv: Sequence[str], prefix: Sequence[str], env: Mapping[str, str], early: Mapping[str, str]
) -> Program | None:
    """Return what to run, None for what only a fresh process could run.

    `prefix`: interpreter and flags of this process. `early`: the environment that it started with.
    A script is looked for from the current folder.
    """
    count = len(prefix)
    if list(argv[:count]) != list(prefix) or "PYTHONINSPECT" in env or _early(env) != _early(early):
        return None
    words, rest = list(argv), list(argv[count:])
    if len(rest) > 1 and rest[0] in {"-m", "-c"}:
        return Program(rest[0], rest[1], [rest[0], *rest[2:]], words)
    if rest and not rest[0].startswith("-") and _is_source(rest[0]):
        return Program("script", rest[0], rest, words)
    return None


def _early(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name.startswith(READ_EARLY)}


def _is_source(path: str) -> bool:
    """Tell whether this is a readable file of source: no folder, archive or compiled file."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 -- pathlib is slow to import
            is_file = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            return is_file and b"\0" not in file.read(1 << 12)
    except OSError:
        return False


def path0_of(kind: str, what: str) -> str | None:
    """Return what the interpreter puts first on the path for its program; None: nothing."""
    if sys.flags.isolated or getattr(sys.flags, "safe_path", False):
        return None
    if kind == "-c":
        return ""
    return os.getcwd() if kind == "-m" else os.path.dirname(os.path.realpath(what))  # noqa: PTH109, PTH120 -- as the interpreter does


def put_on(env: Mapping[str, str]) -> None:
    """Make this the process's environment, for Python and for C."""
    os.environ.clear()
    os.environ.update(env)


def restore_signals() -> None:
    """Give the signals the handlers that Python thinks they have: the launcher reset them all.

    Those are what a fresh interpreter has, and what the imported modules asked for.
    """
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        if handler is not None and handler is not signal.SIG_DFL:
            signal.signal(number, handler)
    if faulthandler.is_enabled():
        faulthandler.disable()
        faulthandler.enable()


def torch_seed() -> int | None:
    """Return the seed of torch, which draws one when it is loaded; None: it is not loaded."""
    torch = sys.modules.get("torch")
    return None if torch is None else int(torch.initial_seed())


def draw_again(drawn: int | None) -> None:
    """Let this process have its own chance, as every fresh one has.

    `drawn`: torch's seed after its import; a module that set another one had its reason.
    """
    # random's own hook has seeded it at the fork.
    if drawn is not None and drawn == torch_seed():
        sys.modules["torch"].default_generator.seed()
    numpy = sys.modules.get("numpy")
    if numpy is not None and "numpy.random" in sys.modules:
        numpy.random.seed()
    multiprocessing = sys.modules.get("multiprocessing.process")
    if multiprocessing is not None:
        multiprocessing.current_process().authkey = os.urandom(32)


def fresh_main() -> dict[str, object]:
    """Make an empty main module, and have whoever holds the old one hold it; return its names.

    A new one, because the garbage collector never looks at what the zygote had (gc.freeze): what
    hangs on it would not be destroyed at the end, and a file left open lose its last lines.
    """
    old = sys.modules["__main__"]
    main = type(sys)("__main__")
    names = main.__dict__
    names["__builtins__"] = sys.modules["builtins"]
    if sys.version_info < (3, 14):
        names.update(__annotations__={})
    for name, module in list(sys.modules.items()):
        if module is old:  # multiprocessing calls it __mp_main__, too
            sys.modules[name] = main
        elif getattr(module, "__dict__", {}).get("__main__") is old:
            module.__dict__["__main__"] = main
    return names


def run(program: Program) -> None:
    """Run the program as the process's main module. Whatever leaves it leaves this, too."""
    sys.argv = program.argv
    sys.orig_argv = program.words
    path0 = path0_of(program.kind, program.what)
    if path0 is not None:
        sys.path.insert(0, path0)
    importlib.invalidate_caches()  # the zygote may have looked before a module was written
    names = fresh_main()
    try:
        _RUNNERS[program.kind](program, names)
    except SystemExit:
        raise
    except BaseException as error:
        _cut(error)
        raise


def _run_script(program: Program, names: dict[str, object]) -> None:
    file = program.what
    if not os.path.isabs(file):  # noqa: PTH117 -- see above
        file = os.getcwd() + "/" + file  # noqa: PTH109 -- as the interpreter does
    from importlib.machinery import SourceFileLoader  # noqa: PLC0415 -- is loaded all the same

    loader = SourceFileLoader("__main__", file)
    names.update(__file__=file, __cached__=None, __loader__=loader)
    code = compile(loader.get_data(file), file, "exec", dont_inherit=True)
    exec(code, names)  # noqa: S102 -- the user's program


def _run_code(program: Program, names: dict[str, object]) -> None:
    from importlib.machinery import BuiltinImporter  # noqa: PLC0415 -- is loaded all the same

    names["__loader__"] = BuiltinImporter
    exec(compile(program.what, "<string>", "exec", dont_inherit=True), names)  # noqa: S102 -- the same


def _run_module(program: Program, names: dict[str, object]) -> None:
    import runpy  # noqa: PLC0415 -- for those who need it

    names["__loader__"] = sys.modules["_frozen_importlib"].BuiltinImporter
    runpy._run_module_as_main(program.what)  # type: ignore[attr-defined]  # noqa: SLF001 -- the interpreter's own way


_RUNNERS = {"script": _run_script, "-c": _run_code, "-m": _run_module}


def _cut(error: BaseException) -> None:
    """Have the traceback begin with the program, not with us, when the interpreter prints it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    told = sys.excepthook

    def excepthook(
        kind: type[BaseException], value: BaseException, _: TracebackType | None
    ) -> None:
        sys.excepthook = told
        told(kind, value.with_traceback(trace), trace)

    sys.excepthook = excepthook


def rewrite_mark(name: bytes, value: bytes) -> bool:
    """Overwrite a variable where the kernel shows it (/proc/PID/environ): whose process this is.

    Returns False when it is not there, or has no room for the value; the rest of its room is NUL.
    """
    start, end = _memory()[ENV_START], _memory()[ENV_END]
    block = b"\0" + ctypes.string_at(start, end - start)
    at = block.find(b"\0" + name + b"=")
    if at < 0:
        return False
    at += len(name) + 2
    room = 0
    for byte in block[at:-1]:  # its old value, and what an earlier, longer one has left
        if byte == 0 and block[at + room + 1] != 0:
            break
        room += 1
    if len(value) > room:
        return False
    ctypes.memmove(start + at - 1, value.ljust(room, b"\0"), room)
    return True


def rewrite_title(argv: Sequence[bytes]) -> None:
    """Show this command, as far as there is room, where the kernel shows one."""
    with suppress(OSError, ValueError):
        start, end = _memory()[ARG_START], _memory()[ARG_START + 1]
        words = b"\0".join(argv)[: end - start - 1] + b"\0"
        ctypes.memmove(start, words.ljust(end - start, b"\0"), end - start)
        # Without this right, which root has, readers see empty words at the end.
        libc = ctypes.CDLL(None)
        libc.prctl(PR_SET_MM, PR_SET_MM_ARG_END, ctypes.c_ulong(start + len(words)), 0, 0)


def _memory() -> list[int]:
    """Return the numbers of /proc/self/stat from behind the name; the first is a letter: 0."""
    with open("/proc/self/stat", "rb") as file:  # noqa: PTH123 -- see above
        return [0, *map(int, file.read().rpartition(b")")[2].split()[1:])]
