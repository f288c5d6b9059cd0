"""What can be run warm, and how many threads OpenBLAS would have chosen."""

import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

from supervisor.process.warm import path0_of, prefix_of, warm_reason
from workers import alone, calm, warm


@pytest.mark.parametrize(
    ("argv", "prefix"),
    [
        (["python", "a.py", "-u"], ["python"]),
        (["python", "-u", "-B", "a.py"], ["python", "-u", "-B"]),
        (["python", "-W", "error", "-Xdev", "-m", "a"], ["python", "-W", "error", "-Xdev"]),
        (["python", "-c", "-u"], ["python"]),
        (["python", "-W"], ["python", "-W"]),
        (["python"], ["python"]),
    ],
)
def test_the_prefix_is_interpreter_and_flags(argv: list[str], prefix: list[str]) -> None:
    """Whatever comes before script, -m or -c, a flag's own word included."""
    assert prefix_of(argv) == tuple(prefix)


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (["python", "a.py"], None),
        (["/x/bin/python3.12", "-u", "-m", "a"], None),
        (["python3", "-c", ""], None),
        (["/own/interpreter", "a.py"], None),
        (["bash", "run.sh"], "its program is 'bash', not a Python interpreter"),
        (["torchrun", "a.py"], "its program is 'torchrun', not a Python interpreter"),
        (["python3-config", "a.py"], "its program is 'python3-config', not a Python interpreter"),
        (["python"], "it names no script, module or code to run"),
        (["python", "-m"], "nothing follows its -m"),
        (["python", "-i", "a.py"], "the interpreter's flag '-i' needs a fresh one"),
        (["python", "-"], "the interpreter's flag '-' needs a fresh one"),
    ],
)
def test_why_a_command_cannot_be_warm(argv: list[str], reason: str | None) -> None:
    """In words for a person; None for what the zygote's children run themselves."""
    assert warm_reason(argv, "/own/interpreter") == reason


def test_where_a_program_has_its_modules(tmp_path: Path) -> None:
    """Beside the script itself, wherever a link to it lies; for -m and -c in the folder."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link.py").symlink_to("real/script.py")
    assert path0_of(["python", "link.py"], tmp_path) == str(tmp_path / "real")
    assert path0_of(["python", "-u", "-m", "x"], tmp_path) == str(tmp_path)
    assert path0_of(["python", "-c", "x"], tmp_path) == str(tmp_path)
    assert path0_of(["python"], None) == str(Path.cwd())
    assert path0_of(["python", "-P", "link.py"], tmp_path) is None


def test_our_own_worker_finds_the_jobs_modules(tmp_path: Path) -> None:
    """It is run by its file, and that folder is none of the job's."""
    ours = str(Path(warm.__file__).with_name("__main__.py"))
    assert path0_of(["python", ours, "train", "{}"], tmp_path) == str(tmp_path)


def test_what_is_run_here(tmp_path: Path) -> None:
    """A source file, a module or code, for the same interpreter with the same early variables."""
    script, binary = tmp_path / "a.py", tmp_path / "a.pyc"
    script.write_text("pass")
    binary.write_bytes(b"\0\0")
    prefix = ["python", "-u"]
    words = [*prefix, str(script), "x"]
    found = warm.program_of(words, prefix, {"A": "1"}, {})
    assert found == warm.Program("script", str(script), [str(script), "x"], words)
    words = [*prefix, "-m", "mod", "x"]
    assert warm.program_of(words, prefix, {}, {}) == ("-m", "mod", ["-m", "x"], words)
    words = [*prefix, "-c", "code"]
    assert warm.program_of(words, prefix, {}, {}) == ("-c", "code", ["-c"], words)
    for rest in ([], ["-m"], ["-"], [str(tmp_path)], [str(binary)], [str(tmp_path / "none.py")]):
        assert warm.program_of([*prefix, *rest], prefix, {}, {}) is None
    assert warm.program_of(["python", str(script)], prefix, {}, {}) is None
    for env in ({"PYTHONPATH": "x"}, {"LD_PRELOAD": "x"}, {"OMP_NUM_THREADS": "2"}):
        assert warm.program_of(words, prefix, env, {}) is None
        assert warm.program_of(words, prefix, env, env) is not None
    inspecting = {"PYTHONINSPECT": "1"}
    assert warm.program_of(words, prefix, inspecting, inspecting) is None


@pytest.mark.parametrize(
    ("environ", "count"),
    [
        ({}, 8),
        ({"OMP_NUM_THREADS": "3"}, 3),
        ({"OMP_NUM_THREADS": "3,2"}, 3),
        ({"OMP_NUM_THREADS": "99"}, 8),
        ({"OMP_NUM_THREADS": "3", "GOTO_NUM_THREADS": "2"}, 2),
        ({"OMP_NUM_THREADS": "3", "OPENBLAS_NUM_THREADS": "0"}, 3),
        ({"OMP_NUM_THREADS": "many", "OPENBLAS_NUM_THREADS": "-1"}, 8),
    ],
)
def test_the_threads_of_openblas(environ: dict[str, str], count: int) -> None:
    """The first variable with a number counts, and never more than there are processors."""
    assert calm.openblas_threads(environ, 8) == count


def test_pools_are_held_and_released(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a library had chosen comes back; what had one thread, or no such call, is left alone."""
    state = {"/l/libgomp.so.1": 4, "/l/libiomp5.so": 1, "/l/libtorch_cpu.so": 6, "/l/libc.so": 9}
    told = []

    def call(path: str, name: str, *values: int) -> int | None:
        if name.startswith("MKL_"):
            return None
        if values:
            state[path] = values[0]
            told.append((path, name, *values))
        return state[path]

    monkeypatch.setattr(calm, "_call", call)
    monkeypatch.setattr(calm, "mapped", lambda: list(state))
    before = dict(state)
    pools = calm.Pools()
    pools.hold()
    pools.hold()
    assert state == {**before, "/l/libgomp.so.1": 1, "/l/libtorch_cpu.so": 1}
    pools.release({"OPENBLAS_NUM_THREADS": "1"})
    assert state == before
    assert told == [
        ("/l/libgomp.so.1", "omp_set_num_threads", 1),
        ("/l/libtorch_cpu.so", "mkl_serv_set_num_threads", 1),
        ("/l/libgomp.so.1", "omp_set_num_threads", 4),
        ("/l/libtorch_cpu.so", "mkl_serv_set_num_threads", 6),
    ]


def test_a_library_is_only_asked_for_what_it_has() -> None:
    """A call that a library lacks, and a library that is not there, are no error."""
    libraries = [path for path in calm.mapped() if "libc.so" in path]
    assert libraries
    assert calm._call(libraries[0], "getppid") == os.getppid()
    assert calm._call(libraries[0], "no_such_call") is None
    assert calm._call("/no/such/library.so", "getppid") is None
    assert calm.calls_of("/l/libgomp-a34b3233.so.1") == calm.OPENMP_CALLS
    assert calm.calls_of("/l/libm.so") == ()


def test_something_is_done_after_an_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, when the module is complete, whoever imports it; others are none of its business."""
    (tmp_path / "inner_thing.py").write_text("import outer_thing\nlate = 1\n")
    (tmp_path / "outer_thing.py").write_text("done = 2\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("sys.meta_path", list(sys.meta_path))
    seen: list[int] = []

    def act() -> None:
        module: ModuleType = sys.modules["outer_thing"]
        seen.append(module.done)
        assert "exec_module" not in vars(module.__loader__)

    sys.meta_path.insert(0, calm.AfterImport("outer_thing", act))
    sys.meta_path.insert(0, calm.AfterImport("not_there_at_all", act))
    try:
        __import__("inner_thing")
        assert seen == [2]
        with pytest.raises(ModuleNotFoundError):
            __import__("not_there_at_all")
        assert seen == [2]
    finally:
        for name in ("inner_thing", "outer_thing"):
            sys.modules.pop(name, None)


def test_what_makes_a_fork_unsafe(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than one thread, an initialised CUDA by torch's word, or by an open device."""
    monkeypatch.setattr(alone, "_name", lambda thread: f"t{thread}")
    monkeypatch.setitem(sys.modules, "torch", None)
    tasks = ["1"]
    monkeypatch.setattr("os.listdir", lambda path: tasks if path.endswith("task") else ["0"])
    assert alone.unsafe() is None
    monkeypatch.setattr(alone, "_link", lambda _: "/dev/nvidia-uvm")
    assert alone.unsafe() == "CUDA was initialised"
    tasks.extend("23456789")
    assert alone.unsafe() == "8 threads were started (t1, t2, t3, t4, t5)"
