"""The unit files as systemd reads them, and as a person does."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from supervisor.daemon.units import Layout, Program

ROOT = Path(__file__).parents[2] / "systemd"
FILES = sorted(one for one in ROOT.rglob("*") if one.is_file())
UNITS = [one for one in FILES if one.suffix in {".service", ".socket", ".slice", ".target"}]
EXPOSURE = 35
"""Tenths; what `systemd-analyze security` finds. The unit says which protections are left out."""

analyzed = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="no systemd-analyze: apt-get install systemd"
)


@pytest.fixture(params=["system", "user"])
def layout(request, tmp_path):
    """Give where the files of an installation below a folder of this test's own are."""
    if request.param == "user":
        return Layout.of_user(tmp_path / "a state", tmp_path)
    return Layout.of_system(tmp_path)


def written(layout):
    """Write the files as an installation would; the units among them."""
    files = layout.rendered(Program(Path(shutil.which("true"))))
    for file, text in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return [file for file in files if file.parent == layout.units]


def verify(layout, units, tmp_path):
    """What systemd has to say against the units."""
    manager = ["--user"] if layout.user else []
    words = ["systemd-analyze", *manager, "verify", "--recursive-errors=no", *units]
    here = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)}
    return subprocess.run(words, capture_output=True, text=True, check=False, env=here)


@analyzed
def test_systemd_understands_every_line(layout, tmp_path):
    """No unknown section, key or value, in any unit."""
    done = verify(layout, written(layout), tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


@analyzed
def test_a_line_that_systemd_does_not_understand_is_found(layout, tmp_path):
    """The test above can fail: a key with a typo is reported."""
    units = written(layout)
    service = layout.units / "supervise.service"
    service.write_text(service.read_text().replace("WatchdogSec", "WatchDogSec"))
    done = verify(layout, units, tmp_path)
    assert done.returncode != 0
    assert "WatchDogSec" in done.stderr


@analyzed
def test_the_daemon_is_not_more_exposed_than_it_was(tmp_path):
    """A protection that is taken away has to be argued for here."""
    layout = Layout.of_system(tmp_path)
    written(layout)
    words = ["systemd-analyze", "security", "--offline=true", "--no-pager"]
    unit = layout.units / "supervise.service"
    words.append(f"--threshold={EXPOSURE}")
    done = subprocess.run([*words, unit], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-300:] + done.stderr
    unit.write_text(unit.read_text().replace("NoNewPrivileges=yes", ""))
    weaker = subprocess.run([*words, unit], capture_output=True, text=True, check=False)
    assert weaker.returncode != 0


@pytest.mark.skipif(shutil.which("systemd-sysusers") is None, reason="no systemd-sysusers")
def test_sysusers_makes_the_two_groups(tmp_path):
    """Both groups, and no user."""
    done = subprocess.run(
        ["systemd-sysusers", "--dry-run", f"--root={tmp_path}", "--inline", *_lines("sysusers.d")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    made = re.findall(r"Creating (\w+) '([\w-]+)'", done.stdout + done.stderr)
    assert sorted(made) == [("group", "supervise"), ("group", "supervise-admin")]


@pytest.mark.skipif(shutil.which("systemd-tmpfiles") is None, reason="no systemd-tmpfiles")
@pytest.mark.skipif(os.geteuid() != 0, reason="gives folders to root")
def test_tmpfiles_makes_the_lease_folder_as_runners_want_it(tmp_path):
    """Open to all, and nobody may remove what is not theirs; the socket's folder is root's."""
    done = subprocess.run(
        ["systemd-tmpfiles", "--create", f"--root={tmp_path}", ROOT / "tmpfiles.d/supervise.conf"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run/lock/supervise").stat().st_mode & 0o7777 == 0o1777
    assert (tmp_path / "run/supervise").stat().st_mode & 0o7777 == 0o755


def _lines(folder):
    text = (ROOT / folder / "supervise.conf").read_text()
    return [line for line in text.splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize("file", FILES, ids=lambda one: f"{one.parent.name}/{one.name}")
def test_each_file_says_whose_it_is(file):
    """The mark by which an uninstallation knows its own; what is ours carries it."""
    assert "Written by `supervise daemon install" in file.read_text().split("\n\n")[0]


@pytest.mark.parametrize("file", UNITS, ids=lambda one: f"{one.parent.name}/{one.name}")
def test_each_choice_is_explained(file):
    """A paragraph of settings has a comment, but for those that say nothing but their section."""
    plain = {"Description", "WantedBy", "Also", "UMask", "LimitNOFILE"}
    for paragraph in re.split(r"\n\s*\n", file.read_text()):
        keys = set(re.findall(r"^(\w+)=", paragraph, re.MULTILINE))
        if keys - plain and "Accounting" not in paragraph:
            assert re.search("^#", paragraph, re.MULTILINE), paragraph


def test_what_is_left_out_is_not_set():
    """The list at the end of the unit, of protections with the reason against them, is true."""
    text = (ROOT / "system/supervise.service").read_text()
    listed = text.partition("--- Left out on purpose ---")[2].partition("[Install]")[0]
    names = set(
        re.findall(r"\b(?:Private|Protect|Memory|Device|Inaccessible)\w+|User(?==)", listed)
    )
    names |= {"ProcSubset"}
    keys = set(re.findall(r"^(\w+)=", text, re.MULTILINE))
    assert len(names) >= 10
    assert names & keys == set()


def test_runners_do_not_fall_with_the_daemon():
    """Neither service takes the slice of the runners with it, nor ends what is not its own."""
    for kind in ("system", "user"):
        text = (ROOT / kind / "supervise.service").read_text()
        assert re.search(r"^KillMode=mixed$", text, re.MULTILINE)
        assert not re.search(r"^(Slice|BindsTo|PartOf|Delegate)=", text, re.MULTILINE)
