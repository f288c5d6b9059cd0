"""The unified cgroup hierarchy of a usual host, memory and all, in a virtual machine.

Each part is a run of pytest in the machine, whose report is judged here: a part that did not run,
or ran less than it should have, is a failure like any other.
"""

import compileall
import faulthandler
import sys
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.vm.guest import ROOT, SYSTEMD
from tests.vm.machine import LIMIT_S, Booted, Unavailable, boot, requirements

pytestmark = [pytest.mark.vm, pytest.mark.timeout(LIMIT_S + 60)]

GUEST = Path(__file__).with_name("guest.py")
# How many tests of a part must have passed, and why others may have been skipped.
PARTS = {
    "root": (18, {"no version 1 freezer that may be written"}),
    "user": (10, set()),
    "memory": (1, set()),
    "systemd": (4, set()),
    "scope": (1, set()),
}
WITH_SYSTEMD = {"systemd", "scope"}


@dataclass(frozen=True)
class Report:
    """What the parts left behind."""

    booted: Booted
    folder: Path

    def says(self, name: str) -> str:
        """Return a file's text; "" where the guest wrote none."""
        file = self.folder / name
        return file.read_text(errors="replace") if file.exists() else ""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Boot the machine once, and give what it left."""
    try:
        kernel = requirements()
    except Unavailable as why:
        pytest.skip(str(why))
    for package in ("supervisor", "workers"):  # once here, not for every process there
        compileall.compile_dir(ROOT / package, quiet=2)
    faulthandler.cancel_dump_traceback_later()  # minutes are no hang here; the timeout stands
    folder = tmp_path_factory.mktemp("machine")
    out = folder / "out"
    out.mkdir()
    return Report(boot(kernel, [sys.executable, str(GUEST), "first"], folder, out), out)


def test_the_machine_came_to_its_end(report: Report) -> None:
    """It ran all parts and switched itself off: nothing was cut short."""
    console = report.booted.console[-3000:]
    assert report.booted.status == 0, console
    assert report.says("finished") == "all parts were run\n", console


@pytest.mark.parametrize("part", PARTS)
def test_in_the_machine(part: str, report: Report) -> None:
    """Every test of the part passed there, but for those that the kernel itself has no use for."""
    if part in WITH_SYSTEMD and not SYSTEMD.exists():
        pytest.skip(f"no systemd on this host: {SYSTEMD}")
    expected, may_be_skipped = PARTS[part]
    log = report.says(f"{part}.log")
    assert report.says(f"{part}.status") == "0", log or report.booted.console[-3000:]
    told = ET.fromstring(report.says(f"{part}.xml"))  # noqa: S314 -- our own pytest wrote it
    passed = [case for case in told.iter("testcase") if not len(case)]
    assert {one.get("message") for one in told.iter("skipped")} <= may_be_skipped, log
    assert len(passed) >= expected, log
