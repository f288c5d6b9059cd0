"""The shell that a job was submitted from reaches its worker, without its secrets."""

import json
import os
import resource
import stat
import subprocess
import sys

import pytest

from supervisor.runner.surroundings import (
    LIMITS,
    SurroundingsUnusable,
    apply,
    capture,
    understood,
    write,
)

MARK = "SUPERVISE_TEST_RUN"  # by which the tests find what they left behind
PLAIN = {"env": {"GREETING": "hello"}, "umask": 0o027, "limits": {}}
# Puts a file on, in a process of its own, and says what it is like then.
PUT_ON = """
import json, os, resource, sys
from pathlib import Path
from supervisor.runner.surroundings import LIMITS, apply
os.environ["SUPERVISE_LEASE_DIR"] = "/ours"
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 100))
apply(Path(sys.argv[1]))
umask = os.umask(0)
limits = {name: resource.getrlimit(number) for name, number in LIMITS.items()}
print(json.dumps({"env": dict(os.environ), "umask": umask, "limits": limits}))
"""


@pytest.fixture
def put_on(tmp_path):
    """What a process is like that has put these surroundings on."""

    def run(*, whole=True, **changes):
        write(tmp_path, (PLAIN if whole else {}) | changes)
        command = [sys.executable, "-c", PUT_ON, str(tmp_path / "surroundings.json")]
        return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)

    return run


def test_what_looks_like_a_secret_is_left_out_unless_it_is_named(monkeypatch):
    """Its value is nowhere; its name is told, so that a person can name it."""
    monkeypatch.setenv("HF_TOKEN", "hunter2")
    monkeypatch.setenv("WANDB_API_KEY", "hunter3")
    monkeypatch.setenv("GREETING", "hello")
    taken = capture(["WANDB_API_KEY"])
    assert taken["left_out"] == ["HF_TOKEN"]
    assert (taken["env"]["WANDB_API_KEY"], taken["env"]["GREETING"]) == ("hunter3", "hello")
    assert "hunter2" not in json.dumps(taken)


def test_what_is_supervises_own_is_not_the_jobs(monkeypatch):
    """A job that is submitted from within another is no part of it, and leases where all do."""
    monkeypatch.setenv("SUPERVISE_LEASE_DIR", "/mine")
    monkeypatch.setenv("SUPERVISE_TREE", "another")
    assert [name for name in capture()["env"] if name.startswith("SUPERVISE_")] == []


def test_umask_and_limits_are_those_of_the_shell():
    """Read without being changed for a moment."""
    before = os.umask(0o027)
    try:
        taken = capture()
        assert taken["umask"] == 0o027
    finally:
        assert os.umask(before) == 0o027
    assert taken["limits"]["nofile"] == list(resource.getrlimit(resource.RLIMIT_NOFILE))
    assert set(taken["limits"]) == set(LIMITS)


def test_they_are_stored_for_their_user_alone(tmp_path):
    """Whatever the umask; and a second time replaces the first."""
    before = os.umask(0)
    try:
        write(tmp_path, PLAIN)
        write(tmp_path, PLAIN | {"umask": 0})
    finally:
        os.umask(before)
    assert [one.name for one in tmp_path.iterdir()] == ["surroundings.json"]
    path = tmp_path / "surroundings.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_bytes())["umask"] == 0


def test_a_process_that_puts_them_on_is_what_the_shell_was(put_on):
    """The environment is replaced, not added to; bytes that are no text arrive as they were."""
    odd = os.fsdecode(b"caf\xe9")
    seen = put_on(env={"GREETING": "hello", "ODD": odd, "LD_PRELOAD": "", "PYTHONPATH": "/x"})
    assert seen["env"].pop("SUPERVISE_LEASE_DIR") == "/ours"
    others = {"LC_CTYPE", MARK}
    assert {name: text for name, text in seen["env"].items() if name not in others} == {
        "GREETING": "hello",
        "ODD": odd,
        "LD_PRELOAD": "",
        "PYTHONPATH": "/x",
    }
    assert seen["umask"] == 0o027


def test_what_is_not_said_stays_as_it_is(put_on, monkeypatch):
    """A client of the API need not know the environment, nor the limits, of the host."""
    monkeypatch.setenv("GREETING", "of the runner")
    before = os.umask(0o071)
    try:
        alone = put_on(whole=False)
        seen = put_on(whole=False, umask=0o007)
        told = put_on(whole=False, env={"GREETING": "hello"})
    finally:
        os.umask(before)
    assert (alone["env"]["GREETING"], alone["umask"]) == ("of the runner", 0o071)
    assert (seen["env"]["GREETING"], seen["umask"]) == ("of the runner", 0o007)
    assert (told["env"]["GREETING"], told["umask"]) == ("hello", 0o071)
    assert alone["limits"]["nofile"] == told["limits"]["nofile"] == [64, 100]


def test_a_submitter_does_not_say_where_leases_lie(put_on):
    """A file that was not made by `capture` has no more to say."""
    seen = put_on(env={"SUPERVISE_LEASE_DIR": "/theirs", "SUPERVISE_TREE": "theirs"})
    assert seen["env"]["SUPERVISE_LEASE_DIR"] == "/ours"
    assert seen["env"].get("SUPERVISE_TREE") != "theirs"


@pytest.mark.parametrize(
    ("asked", "soft"), [([32, 32], 32), ([5000, 9000], 100), ([-1, -1], 100), ([70, -1], 70)]
)
def test_soft_limits_are_taken_as_far_as_the_own_hard_ones_let_them(put_on, asked, soft):
    """Hard limits stay what they are."""
    seen = put_on(limits={"nofile": asked, "core": [0, -1], "made_up": [1, 1]})
    assert seen["limits"]["nofile"] == [soft, 100]
    assert seen["limits"]["core"][0] == 0


def test_without_a_file_nothing_changes(tmp_path, monkeypatch):
    """A job that was not submitted to a daemon has none."""
    monkeypatch.setenv("GREETING", "unchanged")
    before = dict(os.environ)
    apply(tmp_path / "surroundings.json")
    assert dict(os.environ) == before


BAD = {
    "no JSON": "{",
    "nothing": "",
    "no text": b"\xff\xfe",
    "a list": "[]",
    "deep": "[" * 100_000,
    "newer": json.dumps(PLAIN | {"format": 2}),
    "an env of nothing": json.dumps(PLAIN | {"env": None}),
    "a umask of nothing": json.dumps(PLAIN | {"umask": None}),
    "a number in env": json.dumps(PLAIN | {"env": {"A": 1}}),
    "a NUL in env": json.dumps(PLAIN | {"env": {"A": "\0"}}),
    "an equals sign in a name": json.dumps(PLAIN | {"env": {"A=B": "x"}}),
    "a name of nothing": json.dumps(PLAIN | {"env": {"": "x"}}),
    "half a character": json.dumps(PLAIN | {"env": {"A": "\ud83d"}}),
    "a negative umask": json.dumps(PLAIN | {"umask": -1}),
    "a large umask": json.dumps(PLAIN | {"umask": 0o1000}),
    "a umask in words": json.dumps(PLAIN | {"umask": "0022"}),
    "limits of one number": json.dumps(PLAIN | {"limits": {"nofile": [1]}}),
    "limits in words": json.dumps(PLAIN | {"limits": {"nofile": ["1", "2"]}}),
    "limits beyond numbers": json.dumps(PLAIN | {"limits": {"nofile": [1 << 63, 1 << 64]}}),
    "limits below all": json.dumps(PLAIN | {"limits": {"nofile": [-2, -1]}}),
}


@pytest.mark.parametrize("name", BAD)
def test_a_damaged_file_is_said_in_words_and_changes_nothing(tmp_path, monkeypatch, name):
    """The message names the file, and two ways on."""
    monkeypatch.setenv("GREETING", "unchanged")
    before, limits = dict(os.environ), resource.getrlimit(resource.RLIMIT_NOFILE)
    path, content = tmp_path / "surroundings.json", BAD[name]
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SurroundingsUnusable, match="Submit the job again") as told:
        apply(path)
    assert str(path) in str(told.value)
    assert dict(os.environ) == before
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == limits


def test_one_that_cannot_be_read_is_said_too(tmp_path):
    """A folder in its place, for instance."""
    (tmp_path / "surroundings.json").mkdir()
    with pytest.raises(SurroundingsUnusable, match="Is a directory"):
        apply(tmp_path / "surroundings.json")


def test_what_is_not_understood_is_not_stored(tmp_path):
    """Rather refuse a submission than a runner, days later."""
    with pytest.raises(SurroundingsUnusable, match="no environment"):
        write(tmp_path, {"env": {"A": 1}, "umask": 0, "limits": {}})
    assert list(tmp_path.iterdir()) == []


def test_what_a_later_version_adds_is_left_alone(tmp_path):
    """Of this format, more keys may come."""
    found = understood(PLAIN | {"left_out": ["HF_TOKEN"], "nice": 5}, tmp_path)
    assert (found.env, found.umask) == (PLAIN["env"], 0o027)
