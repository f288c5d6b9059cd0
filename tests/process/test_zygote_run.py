"""A program that runs warm cannot tell: all that it can see and do is as in a fresh interpreter."""

import json

import pytest

from tests.process.zygotes import Home, drive, home  # noqa: F401 -- a fixture, by its name

# Everything about its process that a program may look at.
LOOK = """
import json, os, resource, signal, sys, threading
import __main__ as main

def plain(value):
    return value if isinstance(value, (str, int, type(None))) else type(value).__name__

def linked(fd):
    try:
        return os.readlink("/proc/self/fd/" + fd)
    except OSError:
        return None

def stream(one):
    kind = type(getattr(one, "buffer", None)).__name__
    return one.encoding, one.errors, one.line_buffering, one.write_through, one.fileno(), kind

if __name__ == "__main__":
    with open("/proc/self/status") as file:
        status = dict(line.split(":", 1) for line in file)
    env = dict(os.environ)
    env.pop("SUPERVISE_TREE")
    fds = {fd: linked(fd) for fd in os.listdir("/proc/self/fd")}
    print(json.dumps({
        "argv": sys.argv, "orig_argv": sys.orig_argv, "path": sys.path, "flags": list(sys.flags),
        "warnoptions": sys.warnoptions, "executable": sys.executable, "cwd": os.getcwd(),
        "main": {name: plain(value) for name, value in sorted(vars(main).items())},
        "spec": getattr(main.__spec__, "name", None), "same": vars(main) is globals(),
        "env": list(env.items()),
        "signals": {key: status[key].strip() for key in ("SigBlk", "SigIgn", "SigCgt")},
        "handlers": [str(signal.getsignal(n)).split(" at 0x")[0] for n in range(1, 65)],
        "fds": {fd: link for fd, link in sorted(fds.items()) if link},
        "limits": [resource.getrlimit(n) for n in range(16)],
        "streams": [stream(sys.stdin), stream(sys.stdout), stream(sys.stderr)],
        "leads": [os.getsid(0) == os.getpid(), os.getpgrp() == os.getpid()],
        "title": open("/proc/self/cmdline").read().rstrip("\\0"),
        "recursion": sys.getrecursionlimit(),
        "thread": [threading.current_thread().name, threading.active_count()],
        "depth": len(sys._current_frames()), "umask": os.umask(0),
    }))
"""

FORMS = {
    "script": ["look.py", "a", "--b=c"],
    "script in the folder": ["./look.py"],
    "script by a detour": ["sub/../look.py", ""],
    "script by a link": ["sub/link.py"],
    "unbuffered": ["-u", "look.py"],
    "flags": ["-W", "error::UserWarning", "-Xfaulthandler", "-B", "look.py"],
    "optimised": ["-OO", "look.py"],
    "safe path": ["-P", "look.py"],
    "isolated": ["-I", "look.py"],
    "module": ["-m", "look", "x"],
    "module of a package": ["-m", "package.part", "-m"],
    "package": ["-m", "package"],
    "code": ["-c", LOOK, "one", "two"],
}


@pytest.mark.parametrize("words", FORMS.values(), ids=FORMS)
def test_what_a_program_sees(words: list[str], home: Home) -> None:  # noqa: F811 -- the fixture
    """Its words, paths, main module, environment, signals, descriptors and limits are the same."""
    home.write("look.py", LOOK)
    home.write("package/__init__.py", "")
    home.write("package/part.py", LOOK)
    home.write("package/__main__.py", LOOK)
    home.write("sub/other.py", LOOK)
    (home.path / "sub" / "link.py").symlink_to("../look.py")

    async def main() -> None:
        (how, cold), (_, warm) = await home.both(["json", "multiprocessing"], home.command(*words))
        assert how.ok, cold
        assert json.loads(warm) == json.loads(cold)

    drive(main)


PROGRAMS = {
    "falls off the end": "print('done')",
    "a number": "import sys; sys.exit(3)",
    "a negative number": "import sys; sys.exit(-1)",
    "words": "import sys; sys.exit('it is over')",
    "nothing": "import sys; sys.exit()",
    "true": "import sys; sys.exit(True)",
    "an exception": "def f():\n    1 / 0\nf()",
    "an exception of an exception": (
        "try:\n    1 / 0\nexcept Exception as e:\n    raise KeyError(2) from e"
    ),
    "no syntax": "print('never')\nfor",
    "a null byte": "print('never')\n\0",
    "an interrupt": "raise KeyboardInterrupt",
    "an interrupt by signal": "import os, signal; os.kill(os.getpid(), signal.SIGINT)",
    "a generator's exit": "raise GeneratorExit",
    "a signal": "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "a crash": "import os, signal; print('x', flush=True); os.kill(os.getpid(), signal.SIGSEGV)",
    "a hook": (
        "import sys\nsys.excepthook = lambda *a: print(len(a), a[1], a[2].tb_next is None)\nboom"
    ),
    "at exit": "import atexit, sys\natexit.register(print, 'last')\nprint('first')\nsys.exit(4)",
    "a thread": "import threading, time\nthreading.Thread(target=lambda: print('t')).start()",
    "a file left open": "f = open('left', 'w')\nf.write('written')\n",
    "a destructor": "class D:\n    def __del__(self): print('gone')\nd = D()",
    "at once": "import os; print('kept', flush=True); print('lost'); os._exit(6)",
}


@pytest.mark.parametrize("way", ["script", "-m", "-c"])
def test_how_a_program_ends(way: str, home: Home) -> None:  # noqa: F811 -- the fixture
    """Exit code, signal, traceback, exit handlers and unwritten output are the same."""

    async def main() -> None:
        zygote = await home.zygote("threading", like=home.command("-c", ""))
        try:
            for name, text in PROGRAMS.items():
                if way == "-c" and "\0" in text:
                    continue
                home.write("program.py", text)
                words = {"script": ["program.py"], "-m": ["-m", "program"], "-c": ["-c", text]}
                command = home.command(*words[way])
                cold = await home.run(command, None)
                left = home.path / "left"
                assert not left.exists() or left.read_text() == "written"
                left.unlink(missing_ok=True)
                warm = await home.run(command, await zygote.fork())
                assert (name, *warm) == (name, *cold)
                assert not left.exists() or left.read_text() == "written"
        finally:
            await zygote.close()

    drive(main)


SPAWNS = """
import multiprocessing, os, pickle

class Thing:
    def __init__(self, value): self.value = value

def double(thing): return Thing(thing.value * 2)

if __name__ == "__main__":
    assert pickle.loads(pickle.dumps(Thing(1))).value == 1
    for way in ("spawn", "fork", "forkserver"):
        with multiprocessing.get_context(way).Pool(2) as pool:
            print(way, [one.value for one in pool.map(double, map(Thing, range(3)))])
"""


@pytest.mark.parametrize("words", [["spawns.py"], ["-m", "spawns"]])
def test_children_find_the_main_module(words: list[str], home: Home) -> None:  # noqa: F811 -- the fixture
    """Children by multiprocessing, of every kind, load the program's own functions and classes."""
    home.write("spawns.py", SPAWNS)

    async def main() -> None:
        command = home.command(*words)
        cold, warm = await home.both(["multiprocessing.pool"], command)
        assert warm == cold
        assert warm[0].ok

    drive(main)
