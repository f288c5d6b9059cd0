import os
import sys
from pathlib import Path

import pytest

from supervisor.spec.job import JobSpec
from supervisor.spec.launch import Launch, ResumePoint, first_launch, resume_launch
from supervisor.spec.load import load_job
from supervisor.spec.paths import environment, resolve
from supervisor.spec.world import check_world

PYTHON = sys.executable


def spec_of(folder: Path, text: str) -> JobSpec:
    """Load a job named a with this text."""
    path = folder / "job.yaml"
    path.write_text(f"name: a\n{text}")
    return load_job(path)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("command: [nosuch]", "command: no program 'nosuch' on the PATH", "install it"),
        ("command: [train.py]", "command: no program 'train.py' on the PATH", "write ./train.py"),
        ("command: [./train.py]", "is not executable", "write [python, ./train.py]"),
        ("command: [./data]", "is not executable", "chmod +x ./data"),
        ("command: [./rnu.sh]", "there is no", "did you mean"),
        ("command: [./src]", "is a folder", "name the program in it"),
        ("command: [python3, tarin.py]", "there is no", "did you mean"),
        ("command: [./run.sh]\ncwd: scr", "cwd: there is no folder", "did you mean"),
        ("command: [./run.sh]\ncwd: data", "is not a folder", "name the folder"),
        ("command: [./run.sh]\npython: .venv/bin/python", "python: there is no", "relative"),
        ("command: [./run.sh]\npython: ./data", "cannot be executed", "name an interpreter"),
        ("command: [./run.sh]\npython: python9", "python: no 'python9' on", "give a path"),
        ("command: [sh]\nenv: {PATH: /nowhere}", "command: no program 'sh' on the PATH", "install"),
    ],
)
def test_what_is_missing_is_told_before_anything_starts(
    tmp_path: Path, text: str, message: str, hint: str
) -> None:
    """Each problem of the machine points at its line of the job file."""
    (tmp_path / "src").mkdir()
    for name in ("train.py", "data"):
        (tmp_path / name).touch()
    (tmp_path / "run.sh").touch(mode=0o755)

    (problem,) = check_world(spec_of(tmp_path, text))

    assert message in problem.message
    assert hint in problem.hint
    assert problem.line >= 2


@pytest.mark.parametrize(
    "text",
    [
        "command: [./run.sh]",
        "command: [sh, -c, 'exit 0']",
        "command: [run.sh]\nenv: {PATH: .}",
        "command: [../run.sh]\ncwd: src",
        f"command: [python, train.py]\npython: {PYTHON}\nenv: {{PATH: /nowhere}}",
        "command: [./run.sh]\ncheckpoint: {preset: hf, dir: not/yet}\ndone: {file: not/yet}",
    ],
)
def test_a_machine_that_has_everything_is_fine(tmp_path: Path, text: str) -> None:
    """Output folders may be missing, and programs are found as the job will find them."""
    (tmp_path / "src").mkdir()
    (tmp_path / "train.py").touch()
    (tmp_path / "run.sh").touch(mode=0o755)

    assert not check_world(spec_of(tmp_path, text))


def test_paths_lead_where_the_file_says(tmp_path: Path) -> None:
    """`cwd` and `python` from the job file, checkpoints and the done file from `cwd`."""
    spec = spec_of(
        tmp_path,
        "command: [x]\ncwd: src/./\npython: .venv/bin/python\ndone: {file: out/DONE}\n"
        "checkpoint: {preset: detectron2, dir: ../runs}\n",
    )

    paths = resolve(spec)

    assert (tmp_path / "src", tmp_path / "runs") == (paths.cwd, paths.checkpoints)
    assert tmp_path / "runs" / "last_checkpoint" == paths.pointer
    assert tmp_path / "src" / "out" / "DONE" == paths.done_file
    assert str(tmp_path / ".venv" / "bin" / "python") == paths.python


def test_home_and_absolute_paths_stay_what_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`~` is the home of who runs the job; an unknown user's is left alone."""
    monkeypatch.setenv("HOME", "/home/me")

    assert resolve(spec_of(tmp_path, "command: [x]\ncwd: ~/p\n")).cwd == Path("/home/me/p")
    assert resolve(spec_of(tmp_path, "command: [x]\ncwd: /data\n")).cwd == Path("/data")
    assert (
        resolve(spec_of(tmp_path, "command: [x]\ncwd: ~nobody9/p\n")).cwd == tmp_path / "~nobody9/p"
    )


def test_the_interpreters_folder_comes_first_on_the_path(tmp_path: Path) -> None:
    """`python: .venv/bin/python` makes `[python, train.py]` run that interpreter."""
    spec = spec_of(tmp_path, "command: [python, t.py]\npython: .venv/bin/python\nenv: {A: 1}\n")

    env = environment(spec, {"PATH": "/bin", "B": "2"})

    assert {"PATH": f"{tmp_path}/.venv/bin{os.pathsep}/bin", "A": "1", "B": "2"} == env


@pytest.mark.parametrize(
    ("resume", "expected"),
    [
        ("{mode: none}", Launch(("x", "{path}"))),
        ("{mode: inplace}", Launch(("x", "{path}"))),
        (
            '{argv: ["--at={step}", "{path}", "{{dir}}", "{dir}"]}',
            Launch(("x", "{path}", "--at=7", "/c/a.pt", "{dir}", "/c")),
        ),
        (
            '{mode: replace, argv: [y, "{step}"], env: {S: "{step}"}}',
            Launch(("y", "7"), {"S": "7"}),
        ),
        ('{env: {P: "{path}"}}', Launch(("x", "{path}"), {"P": "/c/a.pt"})),
    ],
)
def test_a_resumed_attempt_gets_what_its_mode_says(
    tmp_path: Path, resume: str, expected: Launch
) -> None:
    """Placeholders are filled in `resume` alone; the command itself is never touched."""
    spec = spec_of(
        tmp_path,
        f'command: [x, "{{path}}"]\ncheckpoint: {{dir: /c, glob: "*.pt"}}\nresume: {resume}\n',
    )

    assert Launch(("x", "{path}")) == first_launch(spec)
    assert expected == resume_launch(spec, ResumePoint(Path("/c/a.pt"), 7))
