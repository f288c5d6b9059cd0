"""The units in a real systemd, with a stand-in for the daemon's program."""

import pytest

from tests.systemd.service import SERVICE, SOCKET

pytestmark = [pytest.mark.systemd, pytest.mark.long]


def test_the_socket_starts_the_service(service):
    """Whoever connects first starts it; it gets the socket by name, and children get none of it."""
    service.ctl("start", "supervise.socket")
    assert not service.is_active()
    answer = service.ask("who")
    assert answer == {"pid": service.pid(), "names": ["api"], "left": [], "inherited": [False]}


def test_only_the_group_may_connect(service):
    """The socket is root's and the group's; a stranger is refused by the kernel."""
    service.ctl("start", "supervise.socket")
    seen = service.container.check("stat", "-c", "%A %U %G", SOCKET).strip()
    assert seen == "srw-rw---- root supervise"
    assert service.ask("who", user="anna")
    assert service.ask("who", user="bert") is None


def test_says_when_it_is_ready(service):
    """`systemctl start` returns when the service serves; its status is one line."""
    service.ctl("start", SERVICE)
    shown = service.shows("StatusText", "SubState", "WatchdogUSec")
    assert shown == {
        "StatusText": "serving on 1 sockets",
        "SubState": "running",
        "WatchdogUSec": "1min",
    }


@pytest.mark.parametrize("how", ["stopped", "its loop stands"])
def test_the_watchdog_fires(how, service, eventually):
    """A service that does not go on is replaced; what runs in units of its own goes on."""
    service.stand_in("WatchdogSec=1s", "TimeoutAbortSec=1s", "RestartSec=100ms")
    service.ctl("start", SERVICE)
    first, runner = service.pid(), service.runner("dog")
    if how == "stopped":
        service.container.check("kill", "-STOP", first)
    else:
        asking = "import socket; s = socket.socket(socket.AF_UNIX); s.connect('{}'); s.send(b'{}')"
        service.container.check("python3", "-c", asking.format(SOCKET, "freeze\\n"))
    eventually(lambda: service.pid() not in {0, first} and service.is_active())
    assert service.shows("NRestarts") == {"NRestarts": "1"}
    assert "watchdog" in service.container.check("journalctl", "-u", SERVICE).lower()
    assert service.ask("who")["pid"] == service.pid()
    assert service.pid("supervise-job-dog.service") == runner


def test_a_service_that_is_alive_is_left_alone(service, eventually):
    """The loop feeds the watchdog: three periods pass, and nobody is killed."""
    service.stand_in("WatchdogSec=1s")
    service.ctl("start", SERVICE)
    first = service.pid()
    service.container.check(
        "systemd-run",
        "--quiet",
        "--on-active=3s",
        "--timer-property=AccuracySec=1ms",
        "touch",
        "/run/late",
    )
    eventually(lambda: service.container.run("test", "-e", "/run/late").returncode == 0)
    assert (service.pid(), service.shows("NRestarts")) == (first, {"NRestarts": "0"})


def test_killed_it_is_back_and_only_its_own_children_died(service, eventually):
    """SIGKILL: systemd starts it again, its children are gone, a runner keeps its process."""
    service.ctl("start", SERVICE)
    first, runner = service.pid(), service.runner("nine")
    child = service.ask("__import__('subprocess').Popen(['sleep', '1000']).pid")
    assert service.container.run("kill", "-0", child).returncode == 0
    service.container.check("kill", "-KILL", first)
    eventually(lambda: service.pid() not in {0, first} and service.is_active())
    eventually(lambda: service.container.run("kill", "-0", child).returncode != 0)
    assert service.pid("supervise-job-nine.service") == runner


def test_clients_wait_while_it_is_restarted(service):
    """A request that comes during a restart is answered by the next one: the socket stays."""
    service.ctl("start", SERVICE)
    first = service.pid()
    service.ctl("restart", "--no-block", SERVICE)
    answers = {service.ask("who")["pid"] for _ in range(5)}
    assert answers - {first} == {service.pid()}


@pytest.mark.parametrize(
    ("words", "job"),
    [
        (("restart", SERVICE), "restart"),
        (("restart", "supervise.socket"), "restart"),
        (("try-restart", SERVICE), "restart"),
        (("stop", SERVICE), "stop"),
        (("stop", "supervise.socket"), "stop"),
    ],
)
def test_it_can_ask_whether_it_is_to_come_back(words, job, service, eventually):
    """While it stops, systemd tells the service itself for which of the two."""
    service.ctl("start", SERVICE)
    service.container.check("touch", "/run/supervise/slow")
    service.ctl("--no-block", *words)
    eventually(lambda: service.shows("StatusText")["StatusText"] == "saving")
    listed = service.ask(f"run('systemctl', 'list-jobs', '--no-legend', '--plain', '{SERVICE}')")
    assert listed[0] == 0
    assert listed[1].split()[1:] == [SERVICE, job, "running"]


def test_a_stop_takes_as_long_as_it_asks_for(service, eventually):
    """More time asked for is given, beyond what the unit says; in the end it is a clean stop."""
    service.stand_in("TimeoutStopSec=1s")
    service.ctl("start", SERVICE)
    service.container.check("touch", "/run/supervise/slow")
    service.container.check(
        "systemd-run",
        "--quiet",
        "--on-active=3s",
        "--timer-property=AccuracySec=1ms",
        "touch",
        "/run/supervise/saved",
    )
    service.ctl("stop", SERVICE)
    assert service.container.run("test", "-e", "/run/supervise/saved").returncode == 0
    assert service.shows("Result", "ActiveState") == {
        "Result": "success",
        "ActiveState": "inactive",
    }


def test_a_wrong_command_line_is_not_tried_again(service, eventually):
    """Exit code 2 cannot heal by itself: one start, and the unit says that it failed."""
    service.drop_in("ExecStart=", "ExecStart=/bin/sh -c 'exit 2'")
    assert service.container.run("systemctl", "start", SERVICE).returncode != 0
    eventually(lambda: service.shows("ActiveState") == {"ActiveState": "failed"})
    assert service.shows("NRestarts") == {"NRestarts": "0"}


MAKE = "os.mkdir('/var/lib/supervise/u', 0o700)"
GIVE = "os.chown('/var/lib/supervise/u', {uid}, {uid})"
ENTER = "run('touch', '/var/lib/supervise/u/x', user={uid}, group={uid}, extra_groups=[])"
WRITE_HOME = "run('touch', '/home/anna/x', user={uid}, group={uid}, extra_groups=[])"
BOOT_ID = "/proc/sys/kernel/random/boot_id"
AS_ANNA = "run('systemd-run', '--quiet', '--wait', '--uid=anna', 'test', '-w', '/home/anna')"
SANDBOX = {
    "become a user, who enters a folder of theirs below the state folder": (
        f"{MAKE} or {GIVE} or {ENTER}",
        [0, ""],
    ),
    "start a unit as a user": (AS_ANNA, [0, ""]),
    "ask systemd": ("run('systemctl', 'is-active', 'supervise.service')", [0, "active\n"]),
    "see every process": ("Path('/proc/1/stat').read_text()[:3]", "1 ("),
    "signal any process": ("os.kill(1, 0)", None),
    "sort on disk": ("run('touch', '/tmp/a', '/var/tmp/a')", [0, ""]),
    "lease a GPU": ("run('touch', '/run/lock/supervise/a')", [0, ""]),
    "find a job file in /tmp": ("Path('/tmp/mark').exists()", True),
    "open a folder of a user's": ("os.listdir('/var/lib/supervise/closed')", "Permission denied"),
    "write into a home": ("open('/home/anna/x', 'w')", "Permission denied"),
    "write into a home as its user": (WRITE_HOME, [0, ""]),
    "write into the system": ("open('/etc/x', 'w')", "Read-only file system"),
    "know this boot as runners do": (f"Path('{BOOT_ID}').read_text()", None),
    "change a control group": ("os.mkdir('/sys/fs/cgroup/x')", "Read-only file system"),
    "tune the kernel": ("open('/proc/sys/kernel/panic', 'w')", "Read-only file system"),
    "make a namespace": ("run('unshare', '--mount', 'true')[0]", 1),
    "mount": ("run('mount', '-t', 'tmpfs', 'x', '/tmp')[0]", 32),
    "use the network": ("run('python3', '-c', 'import socket; socket.socket()')[0]", 1),
}


@pytest.mark.parametrize("what", SANDBOX)
def test_the_sandbox(what, service):
    """What the daemon's work needs goes through; the rest of root's rights does not."""
    question, expected = SANDBOX[what]
    uid = int(service.container.check("id", "-u", "anna"))
    closed = "/var/lib/supervise/closed"
    service.container.check("rm", "-rf", "/var/lib/supervise/u")
    service.container.check("install", "-d", "-m", "0700", "-o", "anna", closed)
    service.container.check("touch", "/tmp/mark")
    if BOOT_ID in question:
        expected = service.container.check("cat", BOOT_ID)
    service.ctl("start", SERVICE)
    assert service.ask(question.replace("{uid}", str(uid))) == expected


def test_the_state_folder_may_be_passed_but_not_read(service):
    """It is made so by systemd; a user enters what is theirs below it."""
    service.ctl("start", SERVICE)
    seen = service.container.check("stat", "-c", "%a %U", "/var/lib/supervise").strip()
    assert seen == "711 root"
    assert service.container.run("ls", "/var/lib/supervise", user="anna").returncode != 0
