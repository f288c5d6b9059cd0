"""The daemon made a service, and taken away again: files, refusals, and what is run."""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from supervisor.cli.daemon.group import command
from supervisor.daemon import install as installing
from supervisor.daemon import systemctl, units
from supervisor.daemon import uninstall as uninstalling
from supervisor.daemon.install import Wishes, install
from supervisor.daemon.uninstall import purge, uninstall
from supervisor.daemon.units import MARK, Layout, Program, Refused, started_by, word

FILES = {
    "etc/systemd/system/supervise.service",
    "etc/systemd/system/supervise.socket",
    "etc/systemd/system/supervise.slice",
    "etc/systemd/system/supervise-jobs.target",
    "etc/sysusers.d/supervise.conf",
    "etc/tmpfiles.d/supervise.conf",
}
PROGRAM = Program(Path("/usr/bin/env"))
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to other users")


def files(folder):
    """Return what is in a folder, as paths relative to it."""
    return {str(one.relative_to(folder)) for one in folder.rglob("*") if one.is_file()}


@pytest.fixture
def layout(tmp_path):
    """Give where the system's files are: a folder of this test's own."""
    return Layout.of_system(tmp_path / "host")


class Fake:
    """Stands for systemd's tools: writes down what is asked, answers what the test wants."""

    def __init__(self, folder, monkeypatch):
        self.log = folder / "asked"
        self.folder = folder
        for tool in ("systemctl", "systemd-sysusers", "systemd-tmpfiles"):
            self.answer(tool, "")
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        monkeypatch.setattr(systemctl, "BOOTED", folder)
        monkeypatch.setattr(uninstalling, "RUNTIME", folder / "run")
        monkeypatch.setattr(os, "geteuid", lambda: 0)

    def answer(self, tool, script):
        """Let a tool do this after it has written down what was asked."""
        file = self.folder / tool
        file.write_text(f'#!/bin/sh\necho "{tool} $*" >> {self.log}\n{script}\n')
        file.chmod(0o755)

    def asked(self):
        """Return what was asked, as words; questions about what is there left out."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line for line in lines if "is-active" not in line and " show " not in line]


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Give systemd's tools that do nothing but remember."""
    (tmp_path / "tools").mkdir()
    return Fake(tmp_path / "tools", monkeypatch)


def test_writes_every_file_once(layout):
    """All units, groups and folders; doing it twice changes nothing and says so."""
    said = list(install(layout, PROGRAM, Wishes(dry=True)))
    assert files(layout.root) == FILES
    assert said == [f"wrote {file}" for file in layout.files()]
    inodes = [file.stat().st_ino for file in layout.files()]
    again = list(install(layout, PROGRAM, Wishes(dry=True)))
    assert again == [f"unchanged: {file}" for file in layout.files()]
    assert [file.stat().st_ino for file in layout.files()] == inodes


def test_the_service_starts_this_program(layout):
    """No placeholder is left, and the program is the one that was asked for."""
    list(install(layout, PROGRAM, Wishes(dry=True)))
    texts = [file.read_text() for file in layout.files()]
    assert [text for text in texts if "@" in text.replace("@system-service", "")] == []
    service = (layout.units / "supervise.service").read_text()
    assert "\nExecStart=/usr/bin/env daemon run --system\n" in service


def test_a_user_has_units_and_no_more(tmp_path, monkeypatch):
    """In the configuration folder, with the state folder named."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    layout = Layout.of_user(tmp_path / "my state", None)
    list(install(layout, PROGRAM, Wishes(dry=True)))
    assert files(tmp_path) == {
        "config/systemd/user/supervise.service",
        "config/systemd/user/supervise.slice",
        "config/systemd/user/supervise-jobs.target",
    }
    service = (tmp_path / "config/systemd/user/supervise.service").read_text()
    assert f'--state-dir "{tmp_path}/my state" daemon run\n' in service


def test_a_relative_configuration_folder_is_ignored(tmp_path, monkeypatch):
    """As the XDG specification wants it."""
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Layout.of_user(tmp_path, None).units == tmp_path / ".config/systemd/user"


def test_what_is_run_for_the_system(layout, fake):
    """Groups, folders, reload: in this order, after the files; then what to type next."""
    said = list(install(layout, PROGRAM, Wishes()))
    etc = layout.root / "etc"
    assert fake.asked() == [
        f"systemd-sysusers {etc}/sysusers.d/supervise.conf",
        f"systemd-tmpfiles --create {etc}/tmpfiles.d/supervise.conf",
        "systemctl daemon-reload",
    ]
    assert "next: systemctl enable --now supervise.service" in said[-2]
    assert "usermod -aG supervise" in said[-1]


@pytest.mark.parametrize(("active", "verb"), [(False, "start"), (True, "restart")])
def test_now_starts_it_or_brings_the_new_program(active, verb, layout, fake):
    """A daemon that runs is restarted, which leaves its jobs alone."""
    fake.answer("systemctl", '[ "$1" = is-active ] && echo active; exit 0' if active else "")
    list(install(layout, PROGRAM, Wishes(dry=True)))  # so that the socket is not new
    said = list(install(layout, PROGRAM, Wishes(now=True)))
    assert fake.asked()[-2:] == [
        "systemctl enable supervise.service",
        f"systemctl {verb} supervise.service",
    ]
    assert ("jobs went on" in "".join(said)) is active


def test_a_changed_socket_is_bound_again(layout, fake):
    """With --now, a socket unit that says something new takes effect."""
    fake.answer("systemctl", '[ "$1" = is-active ] && echo active; exit 0')
    list(install(layout, PROGRAM, Wishes(now=True)))
    assert "systemctl restart supervise.socket" in fake.asked()


def test_a_user_is_told_about_lingering(tmp_path, fake, monkeypatch):
    """Without it the jobs end at logout; with it nothing is said."""
    runtime = tmp_path / "runtime"
    (runtime / "systemd/private").mkdir(parents=True)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.setattr(installing, "LINGERING", tmp_path / "linger")
    layout = Layout.of_user(tmp_path / "state", tmp_path / "config")
    said = list(install(layout, PROGRAM, Wishes()))
    assert fake.asked() == ["systemctl --user daemon-reload"]
    assert "loginctl enable-linger" in said[-1]
    assert "systemctl --user enable --now" in said[-2]
    monkeypatch.setattr(installing, "LINGERING", tmp_path)
    (tmp_path / installing.user_name()).touch()
    assert "linger" not in "".join(install(layout, PROGRAM, Wishes()))


def test_refused_without_systemd(layout, fake, monkeypatch):
    """Told in words, and nothing is written."""
    monkeypatch.setattr(systemctl, "BOOTED", layout.root / "nowhere")
    with pytest.raises(Refused, match="systemd does not run this host"):
        list(install(layout, PROGRAM, Wishes()))
    assert (files(layout.root), fake.asked()) == (set(), [])


def test_refused_without_root(layout, fake, monkeypatch):
    """With both ways out: sudo, or a daemon of one's own."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Refused, match=r"sudo supervise .*install --user"):
        list(install(layout, PROGRAM, Wishes()))
    assert files(layout.root) == set()


def test_refused_without_a_manager_of_the_users(tmp_path, fake, monkeypatch):
    """As after `su`: there is no service manager to serve."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "none"))
    layout = Layout.of_user(tmp_path / "state", tmp_path / "config")
    with pytest.raises(Refused, match="loginctl enable-linger"):
        list(install(layout, PROGRAM, Wishes()))
    assert not layout.units.exists()


@pytest.fixture
def program(tmp_path, tmp_path_factory):
    """Give a program in a folder of its own, behind a link: a virtual environment."""
    base = tmp_path_factory.getbasetemp()
    (tmp_path / "real").mkdir()
    python = tmp_path / "real/python"
    python.write_text("#!/bin/sh\n")
    python.chmod(0o755)
    folder = tmp_path / "venv"
    folder.mkdir()
    (folder / "python").symlink_to(python)
    shutil.copy2(python, folder / "supervise")
    for one in (tmp_path, *tmp_path.parents):
        if one == base or one.name.startswith(("pytest-", "popen-")) or base in one.parents:
            one.chmod(0o755)  # pytest's own, which others may not enter
    return Program(folder / "supervise", (folder / "python", folder))


@pytest.mark.parametrize("closed", ["venv", "real", "venv/supervise", "real/python"])
def test_refused_where_users_cannot_run_it(closed, program, layout, fake, tmp_path):
    """Whatever is closed on the way, by name or behind a link, is named, with its mode."""
    assert program.closed_to_others() is None
    (tmp_path / closed).chmod(0o700)
    with pytest.raises(Refused, match=f"{tmp_path / closed} is closed to them .mode 0700"):
        list(install(layout, program, Wishes(force=True)))
    assert files(layout.root) == set()


def test_a_user_may_install_what_only_they_can_run(program, tmp_path, fake, monkeypatch):
    """Their own daemon has their own rights."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "systemd/private").mkdir(parents=True)
    (tmp_path / "venv").chmod(0o700)
    assert list(install(Layout.of_user(tmp_path / "s", tmp_path / "c"), program, Wishes()))


@root_only
@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("place", ["venv", "real/python"])
@pytest.mark.parametrize("change", ["owner", "all", "group"])
def test_refused_where_others_could_change_it(place, change, program, layout):
    """Whoever could write there would be root; --force says that this is meant."""
    assert program.open_to_change() is None
    target = program.command.parent.parent / place
    if change == "all":
        target.chmod(0o757)
    else:
        os.chown(target, 4242 if change == "owner" else -1, 4242)
        target.chmod(0o755 if change == "owner" else 0o775)
    with pytest.raises(Refused, match=f"{target} can be changed by others.*--force"):
        list(install(layout, program, Wishes()))
    assert files(layout.root) == set()
    list(install(layout, program, Wishes(force=True)))
    assert files(layout.root) == FILES


def test_refused_beside_another_installation(layout):
    """Its program is named; --force replaces it, and the same program never needs that."""
    list(install(layout, Program(Path("/opt/my tools/bin/supervise")), Wishes(dry=True)))
    with pytest.raises(Refused, match="which starts /opt/my tools/bin/supervise"):
        list(install(layout, PROGRAM, Wishes(dry=True)))
    list(install(layout, PROGRAM, Wishes(dry=True, force=True)))
    assert started_by((layout.units / "supervise.service").read_text()) == "/usr/bin/env"


@pytest.mark.parametrize(
    "place",
    ["etc/systemd/system/supervise.slice", "usr/lib/systemd/system/supervise.service"],
)
def test_refused_over_somebody_elses_file(place, layout):
    """A file that we did not write, or a package's unit that ours would hide, is not replaced."""
    (layout.root / place).parent.mkdir(parents=True)
    (layout.root / place).write_text("[Unit]\nDescription=mine\n")
    with pytest.raises(Refused, match=f"{place}.*--force"):
        list(install(layout, PROGRAM, Wishes(dry=True)))
    assert files(layout.root) == {place}
    list(install(layout, PROGRAM, Wishes(dry=True, force=True)))
    assert files(layout.root) == FILES | {place}


def test_a_drop_in_is_left_alone(layout):
    """What an administrator added beside the units outlives install and uninstall."""
    mine = layout.units / "supervise.service.d/mine.conf"
    mine.parent.mkdir(parents=True)
    mine.write_text("[Service]\n")
    list(install(layout, PROGRAM, Wishes(dry=True)))
    list(uninstall(layout, dry=True))
    assert mine.read_text() == "[Service]\n"


def test_a_tool_that_fails_is_told(layout, fake):
    """With its own words, and where to look."""
    fake.answer("systemctl", "echo 'Unit is masked.' >&2; exit 1")
    with pytest.raises(Refused, match=r"daemon-reload failed: Unit is masked\.\nSee: systemctl"):
        list(install(layout, PROGRAM, Wishes()))


def test_a_tool_that_is_missing_is_told(layout, fake, monkeypatch):
    """The groups cannot be made without it."""
    monkeypatch.setenv("PATH", str(layout.root))
    with pytest.raises(Refused, match="systemd-sysusers is not installed"):
        list(install(layout, PROGRAM, Wishes()))


def test_nothing_half_written_is_left(layout, monkeypatch):
    """A full disk: the old file is still there, whole, and no other."""
    list(install(layout, PROGRAM, Wishes(dry=True)))
    before = (layout.units / "supervise.service").read_text()

    def full(self, *_args, **_kwargs):
        self.touch()
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        list(install(layout, Program(Path("/bin/sh")), Wishes(dry=True, force=True)))
    assert files(layout.root) == FILES
    assert (layout.units / "supervise.service").read_text() == before


def test_templates_come_from_the_checkout_or_the_wheel(layout, tmp_path, monkeypatch):
    """Both places are found; without either the answer is in words."""
    checkout = {file: template.read_text() for file, template in layout.files().items()}
    wheel = tmp_path / "site-packages/supervisor"
    wheel.mkdir(parents=True)
    monkeypatch.setattr(units.supervisor, "__file__", str(wheel / "__init__.py"))
    with pytest.raises(Refused, match="unit files are missing"):
        layout.files()
    shutil.copytree(Path(__file__).parents[2] / "systemd", wheel / "systemd")
    assert {file: one.read_text() for file, one in layout.files().items()} == checkout


def test_a_program_without_its_command_is_refused(monkeypatch):
    """Run from a source folder: there is nothing that a service could start."""
    monkeypatch.setattr(sys, "executable", "/nowhere/bin/python")
    with pytest.raises(Refused, match="no command /nowhere/bin/supervise"):
        Program.this()
    told = CliRunner().invoke(command, ["install", "--prefix", "/nowhere"], obj=Path("/s"))
    assert (told.exit_code, "pip install" in told.output) == (1, True)


@pytest.mark.parametrize("name", ["plain", "with space", "per%cent", "ümläut", "a;b"])
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")
def test_systemd_finds_a_program_of_any_name(name, tmp_path):
    """What is written is read as this very path, by systemd and by us."""
    program = tmp_path / name / "supervise"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / "a.service"
    unit.write_text(f"[Service]\nExecStart={word(program, is_program=True)} {word(program)} x\n")
    words = ["systemd-analyze", "verify", "--recursive-errors=no", unit]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert started_by(unit.read_text()) == str(program)


def test_a_path_that_no_unit_can_name_is_refused():
    """A line break would begin another line; the program may not be quoted by all means."""
    assert word(Path("/a$b")) == '"/a$$b"'
    assert word(Path('/"a\\')) == '"/\\"a\\\\"'
    for text in ("/a\nb", "/a$b", "/a'b", '/a"b', "/a\\b"):
        with pytest.raises(Refused, match="cannot name the path"):
            word(Path(text), is_program=True)
    with pytest.raises(Refused, match="cannot name the path"):
        word(Path("/a\nb"))


def test_uninstall_takes_ours_and_leaves_the_rest(layout):
    """Files with our mark go; a stranger's, and all that jobs wrote, stay. Twice is once."""
    list(install(layout, PROGRAM, Wishes(dry=True)))
    strange = layout.units / "supervise.slice"
    strange.write_text("[Slice]\n")
    journal = layout.state_dir / "users/1000/journal.sqlite"
    journal.parent.mkdir(parents=True)
    journal.touch()
    said = list(uninstall(layout, dry=True))
    assert len(said) == 5
    assert [file.exists() for file in (strange, journal)] == [True, True]
    assert MARK not in "".join((layout.root / one).read_text() for one in files(layout.root))
    assert "nothing of supervise is installed" in next(uninstall(layout, dry=True))


def test_uninstall_ends_the_daemon_and_not_its_jobs(layout, fake):
    """It gets SIGTERM, and is not started again; systemd's stop would stop its jobs."""
    list(install(layout, PROGRAM, Wishes(dry=True)))
    seen = fake.folder / "seen"
    drop_in = fake.folder / "run/systemd/system/supervise.service.d/leaving.conf"
    with subprocess.Popen(
        ["sh", "-c", f"trap 'cat {drop_in} > {seen}; exit' TERM; while :; do read x; done"],
        stdin=subprocess.PIPE,
    ) as daemon:
        fake.answer("systemctl", f'[ "$1" = show ] && echo {daemon.pid}; exit 0')
        said = list(uninstall(layout))
        daemon.kill()
    assert "the daemon has ended; its jobs go on without it" in said
    assert not drop_in.parent.exists()
    assert fake.asked() == [
        "systemctl disable supervise.service supervise.socket",
        "systemctl daemon-reload",
        "systemctl stop supervise.socket supervise-jobs.target",
        "systemctl daemon-reload",
        "systemctl reset-failed supervise.service",
    ]


def test_purge_asks_and_takes_a_no(tmp_path):
    """Nothing is touched without a yes; with one, the state goes too."""
    state = tmp_path / "var/lib/supervise/users"
    state.mkdir(parents=True)
    tool = CliRunner()
    words = ["uninstall", "--purge", "--prefix", str(tmp_path)]
    no = tool.invoke(command, words, obj=Path("/s"), input="n\n")
    assert (no.exit_code, "all users' jobs" in no.output, state.exists()) == (1, True, True)
    nobody = tool.invoke(command, words, obj=Path("/s"), input="")
    assert (nobody.exit_code, state.exists()) == (1, True)
    yes = tool.invoke(command, words, obj=Path("/s"), input="y\n")
    assert (yes.exit_code, state.parent.exists()) == (0, False)


def test_purge_stops_the_jobs_first(layout, fake):
    """The daemon, with its jobs; then what is left of them; only then the folder."""
    layout.state_dir.mkdir(parents=True)
    (layout.state_dir / "escape").symlink_to(fake.folder)
    fake.answer("systemctl", '[ "$1" = is-active ] && echo active; exit 0')
    said = list(purge(layout))
    assert fake.asked() == [
        "systemctl stop supervise.socket supervise.service",
        "systemctl stop supervise.slice",
    ]
    assert said[-1] == f"removed {layout.state_dir}"
    assert fake.log.exists()


def test_purge_deletes_nothing_while_a_job_runs(layout, fake):
    """A job of `supervise run` is no unit to be stopped: it is named, and its state kept."""
    lock = layout.state_dir / "jobs/digits-1/runner.lock"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(Refused, match=f"digits-1 still runs .process {os.getpid()}"):
            list(purge(layout))
        assert lock.exists()
    list(purge(layout))
    assert not layout.state_dir.exists()


def test_uninstall_ends_a_service_that_never_comes_up(layout, fake):
    """Between two attempts to start there is no process; the attempts end."""
    list(install(layout, PROGRAM, Wishes(dry=True)))
    fake.answer("systemctl", '[ "$1" = is-active ] && echo activating; exit 0')
    list(uninstall(layout))
    assert "systemctl stop supervise.service" in fake.asked()


def test_the_command_line(tmp_path, monkeypatch):
    """Install, again, and uninstall, as they are typed; what stays is named."""
    tool = CliRunner()
    where = ["--prefix", str(tmp_path)]
    first = tool.invoke(command, ["install", *where], obj=Path("/s"))
    assert (first.exit_code, first.output.count("wrote ")) == (0, 6), first.output
    again = tool.invoke(command, ["install", *where], obj=Path("/s"))
    assert (again.exit_code, again.output.count("unchanged: ")) == (0, 6)
    (tmp_path / "var/lib/supervise").mkdir(parents=True)
    gone = tool.invoke(command, ["uninstall", *where], obj=Path("/s"))
    assert (gone.exit_code, gone.output.count("removed ")) == (0, 6)
    assert f"kept {tmp_path}/var/lib/supervise" in gone.output
    monkeypatch.setattr(systemctl, "BOOTED", tmp_path / "nowhere")
    told = tool.invoke(command, ["install"], obj=Path("/s"))
    assert (told.exit_code, "Error: systemd does not run" in told.output) == (1, True)


def test_the_group_names_its_verbs_and_imports_none():
    """The help page knows each verb; a verb that is none is refused."""
    tool = CliRunner()
    page = tool.invoke(command, ["--help"])
    assert [verb in page.output for verb in ("run", "install", "uninstall", "status")] == [True] * 4
    assert tool.invoke(command, ["fly"]).exit_code == 2
