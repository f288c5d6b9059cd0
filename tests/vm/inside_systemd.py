"""In the machine, under a real systemd: what its scopes give, and what `doctor` says where not."""

import subprocess
import sys

from tests.vm.given import ASK, DELEGATED, SUPERVISE, TOP, As, told

SURVEY = (sys.executable, "-c", ASK)
LEVERS = ("whole-tree kill", "process limit", "memory limit", "out-of-memory kills")


def test_root_divides_its_scope() -> None:
    """A scope with Delegate=yes gives root every lever, in the scope."""
    asked = subprocess.run(
        ["systemd-run", *DELEGATED, "--unit=mine", *SURVEY],
        capture_output=True,
        text=True,
        check=True,
    )
    scope = TOP / "system.slice/mine.scope"
    assert told(asked) == {"levers": [str(scope)] * 3, "reasons": []}


def test_root_needs_no_delegation() -> None:
    """Without it root has every lever, in a tree of its own beside systemd's."""
    asked = subprocess.run(SURVEY, capture_output=True, text=True, check=True)
    assert told(asked) == {"levers": [str(TOP / "supervise")] * 3, "reasons": []}


def test_a_user_is_told_what_to_do(somebody: As) -> None:
    """Outside of a cgroup of his own `doctor` finds no lever, and names the command that helps."""
    found = {one["check"]: one for one in told(somebody(SUPERVISE, "doctor", "--json"))}
    assert [found[one]["status"] for one in LEVERS[:3]] == ["weak"] * 3
    for one in LEVERS[:3]:
        assert "systemd-run --user --scope -p Delegate=yes" in found[one]["do"]
    assert found["systemd"]["status"] == "weak"


def test_what_the_user_was_told_helps(somebody: As) -> None:
    """In the scope that it named every lever works, and nothing is left to do."""
    asked = somebody("systemd-run", "--user", *DELEGATED, SUPERVISE, "doctor", "--json")
    found = {one["check"]: one for one in told(asked)}
    assert [found[one]["status"] for one in (*LEVERS, "systemd")] == ["ok"] * 5
    assert "cgroup v2" in found["memory limit"]["found"]
