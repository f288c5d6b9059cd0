import asyncio
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from supervisor.process import Command, ExitStatus, SpawnFailed, isolated_child

pytestmark = pytest.mark.usefixtures("unleaked")


def run(command: Command) -> ExitStatus:
    """Run a command to its end."""

    async def main() -> ExitStatus:
        async with isolated_child(command) as child:
            return await child.wait()

    return asyncio.run(main())


def printed(tmp_path: Path, argv: Sequence[str], **more: Any) -> str:
    """Run a command to its end and return what it wrote."""
    output = tmp_path / "output"
    assert run(Command(argv=argv, output=output, **more)).ok, output.read_text()
    return output.read_text()


def refusal(command: Command) -> SpawnFailed:
    """Return the error that a command cannot be started with."""
    with pytest.raises(SpawnFailed) as caught:
        run(command)
    return caught.value


def started(pid: int) -> int:
    """Return when a process started, in clock ticks since boot (proc_pid_stat(5), field 22)."""
    stat = Path(f"/proc/{pid}/stat").read_text()
    return int(stat.rpartition(")")[2].split()[19])


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """Return an executable file to write a program to."""
    path = tmp_path / "script"
    path.touch(0o755)
    return path


def test_missing_command() -> None:
    """A command that is not on the PATH is named, with the kernel's errno."""
    error = refusal(Command(argv=["no-such-command", "x"]))
    assert (error.stage, error.errno, error.path) == ("exec", errno.ENOENT, "no-such-command")
    assert str(error).startswith("cannot start 'no-such-command': no such command on the PATH")


def test_missing_file() -> None:
    """A path that does not exist is not mistaken for a command to look up."""
    error = refusal(Command(argv=["./nothing/here"]))
    assert (error.stage, error.errno) == ("exec", errno.ENOENT)
    assert str(error).endswith("./nothing/here does not exist")


def test_not_executable(script: Path) -> None:
    """A file without the x bit says which command would set it."""
    script.chmod(0o644)
    error = refusal(Command(argv=[str(script)]))
    assert (error.stage, error.errno) == ("exec", errno.EACCES)
    assert str(error).endswith(f"chmod +x {script}")


def test_a_folder_is_no_program(tmp_path: Path) -> None:
    """A folder is called a folder, not a permission problem."""
    error = refusal(Command(argv=[str(tmp_path)]))
    assert (error.stage, error.errno) == ("exec", errno.EACCES)
    assert "is a folder" in str(error)


def test_bad_interpreter_line(script: Path) -> None:
    """A script whose interpreter is missing is not reported as missing itself."""
    script.write_text("#!/no/such/interpreter\n")
    error = refusal(Command(argv=[str(script)]))
    assert (error.stage, error.errno) == ("exec", errno.ENOENT)
    assert f"first line ('#!...') of {script}" in str(error)


def test_bad_interpreter_line_on_the_path(script: Path) -> None:
    """The same for a script that was looked up."""
    script.write_text("#!/no/such/interpreter\n")
    error = refusal(Command(argv=["script"], env={"PATH": f"/none:{script.parent}"}))
    assert f"first line ('#!...') of {script}" in str(error)


def test_no_program_format(script: Path) -> None:
    """A file that is no program is told to begin with an interpreter line."""
    script.write_text("echo hello\n")
    error = refusal(Command(argv=[str(script)]))
    assert (error.stage, error.errno) == ("exec", errno.ENOEXEC)
    assert "#!/bin/sh" in str(error)


def test_too_large_environment() -> None:
    """Arguments and environment beyond the kernel's limit are named as the reason."""
    env = {f"V{number}": "x" * 100_000 for number in range(30)}
    error = refusal(Command(argv=["/bin/true"], env=env))
    assert (error.stage, error.errno) == ("exec", errno.E2BIG)
    assert "larger than the kernel accepts" in str(error)


@pytest.mark.parametrize("name", ["missing", "file"])
def test_folder_that_cannot_be_entered(tmp_path: Path, name: str) -> None:
    """A working folder that is missing, or is a file, is blamed by its full path."""
    (tmp_path / "file").touch()
    error = refusal(Command(argv=["true"], cwd=tmp_path / name))
    assert (error.stage, error.path) == ("chdir", str(tmp_path / name))
    assert error.errno == {"missing": errno.ENOENT, "file": errno.ENOTDIR}[name]
    assert f"its working folder {tmp_path / name}" in str(error)


@pytest.mark.parametrize("name", ["missing/output", "."])
def test_output_that_cannot_be_opened(tmp_path: Path, name: str) -> None:
    """An output file in a missing folder, or that is a folder, is blamed before anything runs."""
    error = refusal(Command(argv=["touch", str(tmp_path / "ran")], output=tmp_path / name))
    assert error.stage == "output"
    assert "its output file" in str(error)
    assert not (tmp_path / "ran").exists()


def test_parent_whose_folder_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A parent in a deleted folder gets an error about it, not a crash."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert refusal(Command(argv=["true"])).stage == "chdir"
    assert run(Command(argv=["true"], cwd="/")).ok


def test_lookup_uses_the_childs_path_and_folder(tmp_path: Path, script: Path) -> None:
    """The program is looked up in the child's PATH, relative entries from the child's folder."""
    script.write_text("#!/bin/sh\necho $0\n")
    found = printed(tmp_path, ["script"], cwd=tmp_path, env={"PATH": "/none:"})
    assert found == "script\n"
    assert printed(tmp_path, ["./script"], cwd=tmp_path, env={}).endswith("./script\n")


def test_lookup_goes_on_after_what_it_may_not_run(tmp_path: Path) -> None:
    """A file without the x bit early on the PATH does not hide the program behind it."""
    (tmp_path / "true").touch(0o644)
    assert run(Command(argv=["true"], env={"PATH": f"{tmp_path}:/bin:/usr/bin"})).ok
    error = refusal(Command(argv=["true"], env={"PATH": f"{tmp_path}"}))
    assert (error.errno, error.path) == (errno.EACCES, str(tmp_path / "true"))


def test_environment_is_whole_or_inherited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`env` replaces everything; without it the parent's environment of that moment is used.

    The mark by which the child's processes are found is added, behind the marks of the parent.
    """
    monkeypatch.setenv("OF_THE_PARENT", "line\nline")
    monkeypatch.setenv("SUPERVISE_TREE", "outer")
    found = printed(tmp_path, ["/usr/bin/env"], env={"A": "=1", "SUPERVISE_TREE": "x"}, mark="in")
    assert found == "A==1\nSUPERVISE_TREE=outer/in\n"
    (tmp_path / "output").unlink()
    assert "OF_THE_PARENT=line\nline\n" in printed(tmp_path, ["/usr/bin/env"])


def test_words_of_any_bytes(tmp_path: Path) -> None:
    """Arguments, values and paths that are no text in any encoding cross unchanged."""
    raw = os.fsdecode(b"\xff\xfe =\n")
    folder = tmp_path / raw
    folder.mkdir()
    show = ["sh", "-c", 'printf %s "$1$V"; pwd', "sh", raw]
    output = folder / "output"
    env = {"V": raw, "PATH": os.environ["PATH"]}
    assert run(Command(argv=show, cwd=folder, env=env, output=output)).ok
    assert output.read_bytes() == os.fsencode(f"{raw}{raw}{folder}\n")


def test_output_is_appended(tmp_path: Path) -> None:
    """Both streams, stdout and stderr, go to the end of the file, in the order written."""
    (tmp_path / "output").write_text("before\n")
    wrote = printed(tmp_path, ["sh", "-c", "echo out; echo err >&2; echo out"])
    assert wrote == "before\nout\nerr\nout\n"


def test_stdin_is_empty(tmp_path: Path) -> None:
    """A child that reads its input sees the end of it."""
    assert printed(tmp_path, ["cat"]) == ""


def test_descriptors_are_those_named(tmp_path: Path, pipe: Any) -> None:
    """The child holds 0 to 2 and inherit_fds, not what else is open here, inheritable or not."""
    os.set_inheritable(pipe.read_fd, True)  # noqa: FBT003 -- it takes nothing else
    argv = ["sh", "-c", "ls /proc/$$/fd; :"]
    listed = printed(tmp_path, argv, inherit_fds=[pipe.write_fd])
    assert set(map(int, listed.split())) == {0, 1, 2, pipe.write_fd}


def test_signals_are_as_new(tmp_path: Path) -> None:
    """The child starts with no signal ignored or blocked, whatever Python or the parent did."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        status = printed(tmp_path, ["grep", "^Sig[BI]", "/proc/self/status"])
    finally:
        signal.signal(signal.SIGHUP, before)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR2])
    # 32 and 33 belong to the C library, which lets no program touch them (nptl(7)).
    own = ~(1 << 31 | 1 << 32)
    found = {name: int(mask, 16) & own for name, mask in map(str.split, status.splitlines())}
    assert found == {"SigBlk:": 0, "SigIgn:": 0}
    assert len(status.splitlines()) == 2


def test_a_pipeline_ends_by_sigpipe(tmp_path: Path) -> None:
    """`yes | head -1` ends at once and quietly, as in a shell."""
    assert printed(tmp_path, ["sh", "-c", "yes | head -1"]) == "y\n"


def test_session_and_group_are_its_own(tmp_path: Path) -> None:
    """The child leads its own session and group, with the pid that was reported."""
    show = "import os; print(os.getpid(), os.getsid(0), os.getpgid(0), os.getppid())"
    output = tmp_path / "output"

    async def main() -> int:
        argv = [sys.executable, "-ISc", show]
        async with isolated_child(Command(argv=argv, output=output)) as child:
            await child.wait()
            # A zombie until the block ends, so it can be looked at.
            assert started(child.pid) == child.start_ticks
            return child.pid

    pid = asyncio.run(main())
    assert output.read_text() == f"{pid} {pid} {pid} {os.getpid()}\n"


def test_parent_with_closed_standard_descriptors(tmp_path: Path) -> None:
    """A parent (a daemon) that closed 0 to 2 starts a child like any other."""
    program = f"""
import asyncio, os, sys
from supervisor.process import Command, Launcher, isolated_child
os.closerange(0, 3)
launcher = Launcher.start()  # before the loop takes the free numbers
async def main():
    argv = ["sh", "-c", "echo fine; ls /proc/$$/fd; :"]
    command = Command(argv=argv, output={str(tmp_path / "output")!r})
    async with isolated_child(command, launcher=launcher) as child:
        assert child.pid == launcher.pid
        return await child.wait()
os._exit(0 if asyncio.run(main()).ok else 1)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
    assert (tmp_path / "output").read_text() == "fine\n0\n1\n2\n"


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"argv": []}, ValueError, "no program"),
        ({"argv": [""]}, ValueError, "no program"),
        ({"argv": "python train.py"}, TypeError, "shlex.split"),
        ({"argv": ["sleep", 1]}, TypeError, r"use str\("),
        ({"argv": ["a\0b"]}, ValueError, "NUL"),
        ({"argv": ["x"], "env": {"A=B": "1"}}, ValueError, "'='"),
        ({"argv": ["x"], "env": {"": "1"}}, ValueError, "env holds"),
        ({"argv": ["x"], "env": {"A": "\0"}}, ValueError, "NUL"),
        ({"argv": ["x"], "env": {"A": 1}}, TypeError, "strings"),
        ({"argv": ["x"], "cwd": "a\0"}, ValueError, "cwd holds a NUL"),
        ({"argv": ["x"], "output": "a\0"}, ValueError, "output holds a NUL"),
        ({"argv": ["x"], "inherit_fds": [1]}, ValueError, "3 or more"),
        ({"argv": ["x"], "stop_signals": []}, ValueError, "stop_signals is empty"),
        ({"argv": ["x"], "stop_signals": [999]}, ValueError, "not a valid Signals"),
        ({"argv": ["x"], "grace_s": -1}, ValueError, "grace_s"),
        ({"argv": ["x"], "mark": ""}, ValueError, "mark is a word"),
        ({"argv": ["x"], "mark": "a/b"}, ValueError, "mark is a word"),
    ],
)
def test_commands_no_kernel_would_take(
    fields: dict[str, Any], error: type[Exception], message: str
) -> None:
    """What cannot be started is refused when it is written down, with what to do."""
    with pytest.raises(error, match=message):
        Command(**fields)


def test_a_command_cannot_change_afterwards() -> None:
    """The list and the mapping a command was made from may change without changing it."""
    argv, env = ["true"], {"A": "1"}
    command = Command(argv=argv, env=env)
    argv.append("x")
    env["B"] = "2"
    assert (command.argv, command.env) == (("true",), {"A": "1"})


def test_nothing_of_this_unpickles() -> None:
    """Importing the package loads neither pickle nor multiprocessing; asking for the form does."""
    program = """
import sys
import supervisor.process as package
assert not {"pickle", "multiprocessing", "torch"} & set(sys.modules)
package.isolated_process
assert "pickle" in sys.modules
try:
    package.nonsense
except AttributeError as error:
    print(error)
"""
    # What measures coverage would import multiprocessing by itself.
    env = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, env=env)
    assert b"no attribute 'nonsense'" in done.stdout
