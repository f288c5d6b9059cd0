"""Shelves: whose folder is whose, who is served, and what a clerk is not believed."""

import asyncio
import os
import stat
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from supervisor.daemon import launch_command, shelf_folders, shelves
from supervisor.daemon.accounts import Account, UnknownAccount, account, barred, environment
from supervisor.daemon.clerk_answers import checked
from supervisor.daemon.clerk_parts import MOST_IDS, parts_of, together
from supervisor.daemon.contracts import Refusal, ShelfUnavailable
from supervisor.daemon.desk import QUESTIONS, Desk
from supervisor.daemon.launch_command import somebody_else
from supervisor.daemon.shelves import LocalShelf, SystemShelves, UserShelves

SOMEBODY = Account(23001, 23001, "somebody", "/home/somebody", "/bin/sh", (23001, 23005))
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="gives folders to others: root's right")


def me() -> Account:
    """Return this process's own user, whether the user database knows them or not."""
    uid, gid = os.geteuid(), os.getegid()
    return Account(uid, gid, "me", "/", "/bin/sh", (gid,))


def mode(path: Path) -> int:
    """Permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Give the state folder of a system daemon."""
    made = tmp_path / "state"
    made.mkdir(mode=0o700)
    return made


def test_a_users_folder_is_theirs_alone(state: Path) -> None:
    """The way there can be walked by all and read by none; what is there already stays."""
    path = shelf_folders.user_shelf(state, me())
    assert path == state / "users" / str(os.geteuid())
    assert [mode(one) for one in (state, state / "users", path)] == [0o711, 0o711, 0o700]
    (path / "kept").touch()
    assert shelf_folders.user_shelf(state, me()) == path
    assert (path / "kept").exists()
    assert shelf_folders.known_users(state) == [os.geteuid()]


@AS_ROOT
def test_a_folder_is_given_to_its_user(state: Path) -> None:
    """Another user's folder belongs to them; a leftover of a crash is no obstacle."""
    (state / "users").mkdir(mode=0o700)
    (state / "users/.new-23001").mkdir()
    path = shelf_folders.user_shelf(state, SOMEBODY)
    status = path.stat()
    assert (status.st_uid, status.st_gid, mode(path)) == (23001, 23001, 0o700)
    assert shelf_folders.known_users(state) == [23001]


def _link_to_another(path: Path) -> None:
    (path.parent / "another").mkdir()
    path.symlink_to(path.parent / "another")


def _open_to_all(path: Path) -> None:
    path.mkdir()
    path.chmod(0o755)


def _a_file(path: Path) -> None:
    path.write_text("")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_link_to_another, "cannot be used"),
        (_a_file, "cannot be used"),
        (_open_to_all, "mode 0755"),
    ],
)
def test_what_is_not_the_users_folder_is_refused(
    state: Path, make: Callable[[Path], None], said: str
) -> None:
    """Something else under a user's number is neither used nor changed."""
    path = state / "users" / str(os.geteuid())
    path.parent.mkdir(mode=0o711)
    make(path)
    before = path.lstat()
    with pytest.raises(ShelfUnavailable, match=said):
        shelf_folders.user_shelf(state, me())
    after = path.lstat()
    assert (after.st_mode, after.st_uid) == (before.st_mode, before.st_uid)


@AS_ROOT
def test_a_folder_of_somebody_else_is_refused(state: Path) -> None:
    """A folder under one user's number that is another's is not used for either."""
    path = shelf_folders.user_shelf(state, SOMEBODY)
    os.chown(path, 23002, 23002)
    with pytest.raises(ShelfUnavailable, match="belongs to uid 23002"):
        shelf_folders.user_shelf(state, SOMEBODY)


@pytest.mark.parametrize("which", ["state", "users"])
def test_a_way_that_others_may_change_is_refused(state: Path, which: str) -> None:
    """Below a folder in which others may exchange names nothing is kept."""
    (state / "users").mkdir(mode=0o711)
    changed = state if which == "state" else state / "users"
    changed.chmod(0o777)
    with pytest.raises(ShelfUnavailable, match="can be changed by others"):
        shelf_folders.user_shelf(state, me())


def test_links_on_the_way_are_refused(state: Path, tmp_path: Path) -> None:
    """`users` that leads elsewhere is not followed."""
    (tmp_path / "elsewhere").mkdir()
    (state / "users").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ShelfUnavailable, match="cannot be used"):
        shelf_folders.user_shelf(state, me())
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_state_folder_of_ones_own(tmp_path: Path) -> None:
    """A user's daemon makes its folder private, and refuses one in which others may write."""
    made = shelf_folders.own_shelf(tmp_path / "a/b")
    assert mode(made) == 0o700
    made.chmod(0o770)
    with pytest.raises(ShelfUnavailable, match="chmod go-w"):
        shelf_folders.own_shelf(made)
    (tmp_path / "file").write_text("")
    with pytest.raises(ShelfUnavailable, match="cannot be used"):
        shelf_folders.own_shelf(tmp_path / "file")


@AS_ROOT
def test_a_state_folder_of_somebody_else(tmp_path: Path) -> None:
    """Another user's folder is not served, also by root."""
    os.chown(tmp_path, 23001, 23001)
    with pytest.raises(ShelfUnavailable, match="belongs to uid 23001"):
        shelf_folders.own_shelf(tmp_path)


def test_a_users_daemon_serves_that_user(tmp_path: Path) -> None:
    """There is one shelf, and nobody else's."""

    async def look() -> None:
        own = UserShelves(tmp_path)
        assert own.known() == [os.geteuid()]
        assert own.of(os.geteuid()).path == tmp_path
        with pytest.raises(ShelfUnavailable, match="alone"):
            own.of(os.geteuid() + 1)
        await own.close()

    asyncio.run(look())


def test_a_uid_that_nobody_has(state: Path) -> None:
    """Without an account there are no groups and no home, so nothing is run; in words."""
    with pytest.raises(UnknownAccount, match="3999999999"):
        account(3_999_999_999)
    with pytest.raises(UnknownAccount):
        account(1 << 70)

    async def look() -> None:
        with pytest.raises(ShelfUnavailable, match="no user of this host"):
            SystemShelves(state).of(3_999_999_999)

    asyncio.run(look())


def test_an_account_has_all_its_groups() -> None:
    """The user database's own answer about who runs this."""
    found = account(0)
    assert (found.uid, found.gid) == (0, 0)
    assert found.gid in found.groups
    assert found.home.startswith("/")


@pytest.fixture
def passable() -> Iterator[Path]:
    """Give a folder that every user may reach; pytest's own are for its user alone."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        yield Path(made)


def test_a_program_that_a_user_cannot_read_is_told(
    passable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The words name the folder that is in the way; where nothing is, there are none."""
    monkeypatch.setattr(sys, "executable", "elsewhere")  # whose library is of no interest here
    monkeypatch.setattr("supervisor.__file__", str(passable / "supervise/__init__.py"))
    python = passable / "root/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text("")
    python.chmod(0o755)
    assert barred(SOMEBODY, str(python)) is None
    (passable / "root").chmod(0o700)
    assert f"somebody may not enter {passable}/root" in str(barred(SOMEBODY, str(python)))
    assert barred(Account(0, 0, "root", "/", "", (0,)), str(python)) is None


def test_modes_count_as_for_the_kernel(passable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Owner, group and others are told apart: who is the owner is not helped by the others."""
    monkeypatch.setattr("supervisor.daemon.accounts._needed", lambda one: [("it", Path(one))])
    place = passable / "python"
    place.write_text("")
    uid, gid = 23001, place.stat().st_gid
    real = Path.stat

    def of_somebody(path: Path, **how: bool) -> os.stat_result:
        found = list(real(path, **how))
        found[4] = uid if path == place else found[4]
        return os.stat_result(found)

    monkeypatch.setattr(Path, "stat", of_somebody)
    people = {
        "owner": Account(uid, gid + 1, "owner", "/", "", (gid + 1,)),
        "group": Account(uid + 1, gid, "group", "/", "", (gid,)),
        "other": Account(uid + 1, gid + 1, "other", "/", "", (gid + 1,)),
    }

    def allowed(bits: int) -> set[str]:
        place.chmod(bits)
        return {name for name, one in people.items() if barred(one, str(place)) is None}

    assert allowed(0o750) == {"owner", "group"}
    assert allowed(0o701) == {"owner", "other"}
    assert allowed(0o055) == {"group", "other"}
    assert allowed(0o640) == {"owner", "group"}


def test_an_environment_without_the_daemons_own() -> None:
    """What systemd told the daemon goes no further, nor does its token; users are who they are."""
    given = {
        "PATH": "/bin",
        "LC_ALL": "C",
        "HOME": "/root",
        "NOTIFY_SOCKET": "/run/n",
        "LISTEN_FDS": "1",
        "WATCHDOG_USEC": "1",
        "CREDENTIALS_DIRECTORY": "/run/c",
        "SUPERVISE_TOKEN": "secret",
        "SUPERVISE_LEASE_DIR": "/run/l",
        "HF_TOKEN": "secret",
    }
    assert environment(SOMEBODY, given) == {
        "PATH": "/bin",
        "LC_ALL": "C",
        "SUPERVISE_LEASE_DIR": "/run/l",
        "HOME": "/home/somebody",
        "USER": "somebody",
        "LOGNAME": "somebody",
        "SHELL": "/bin/sh",
    }
    own = environment(None, given)
    assert own["HOME"] == "/root"
    assert not {"NOTIFY_SOCKET", "LISTEN_FDS", "WATCHDOG_USEC"} & set(own)


def test_who_a_runner_becomes(monkeypatch: pytest.MonkeyPatch) -> None:
    """One's own jobs need nobody else; others' need root, an account and a readable program."""
    assert somebody_else(os.geteuid(), account, sys.executable) is None
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    with pytest.raises(launch_command.LaunchFailed, match="cannot start a job of uid 23001"):
        somebody_else(23001, lambda _: SOMEBODY, sys.executable)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(launch_command.LaunchFailed, match="no user of this host"):
        somebody_else(3_999_999_999, account, sys.executable)
    monkeypatch.setattr(launch_command, "barred", lambda *_: "may not enter /root")
    with pytest.raises(launch_command.LaunchFailed, match="may not enter"):
        somebody_else(23001, lambda _: SOMEBODY, sys.executable)
    monkeypatch.setattr(launch_command, "barred", lambda *_: None)
    assert somebody_else(23001, lambda _: SOMEBODY, sys.executable) == SOMEBODY


def test_a_local_shelf_answers(tmp_path: Path) -> None:
    """Questions, slow ones too, are answered beside the event loop, refusals arrive as they are."""

    async def ask() -> None:
        shelf = LocalShelf(tmp_path)
        assert await shelf.ask("records", {}) == []
        assert await shelf.ask("sweep", {}) == {"ids": []}
        with pytest.raises(Refusal, match="nobody answers"):
            await shelf.ask("nothing", {})
        await shelf.close()
        await shelf.close()

    before = threading.active_count()
    asyncio.run(ask())
    assert threading.active_count() == before


def test_a_desk_that_hangs_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks is told in time, and the next question finds another desk."""
    monkeypatch.setattr(shelves, "ANSWER_S", 0.1)
    monkeypatch.setattr(shelves, "LEAVE_S", 0.1)
    released, answer = threading.Event(), Desk.answer

    def hanging(desk: Desk, question: str, arguments: Mapping[str, Any]) -> Any:
        if question == "record":
            released.wait(30)
        return answer(desk, question, arguments)

    monkeypatch.setattr(Desk, "answer", hanging)

    async def ask() -> None:
        shelf = LocalShelf(tmp_path)
        with pytest.raises(ShelfUnavailable, match="nobody answered"):
            await shelf.ask("record", {"id": "net"})
        assert await shelf.ask("records", {}) == []
        await shelf.close()

    before = set(threading.enumerate())
    asyncio.run(ask())
    released.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive()


def test_too_many_questions_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A desk that cannot keep up says so, instead of taking memory."""
    monkeypatch.setattr("supervisor.daemon.desk_thread.MOST_ASKED", 0)

    async def ask() -> None:
        shelf = LocalShelf(tmp_path)
        with pytest.raises(ShelfUnavailable, match="too much"):
            await shelf.ask("records", {})
        await shelf.close()

    asyncio.run(ask())


RUNNER = {
    "pid": 5,
    "start_ticks": 7,
    "boot_id": "b",
    "locked_by": None,
    "state": "running",
    "why": "",
    "ended": False,
}
NEEDS = {
    "gpus": 0,
    "gpu_memory_bytes": None,
    "share_gpu": False,
    "cpus": 1,
    "memory_bytes": None,
}
EXAMINED = {
    "spec": "{}",
    "name": "net",
    "folder": "/x",
    "needs": NEEDS,
    "priority": 0,
    "after": [],
    "key": None,
    "group": None,
    "hold_after": None,
    "claims": [],
    "env_keep": ["HF_TOKEN"],
    "stop_s": 60.0,
    "generation": 1,
}


DOCUMENT = {
    "id": "a",
    "name": "net",
    "state": "running",
    "why": "",
    "step": 5,
    "total": None,
    "folder": "/x",
    "created_at": "2026-03-01T12:03:04.250Z",
    "updated_at": "2026-03-01T12:03:04.250Z",
    "runner_pid": 7,
    "runner_alive": True,
}
ROW = DOCUMENT | {"attempt": 1, "last_cause": None}


def test_what_a_newer_clerk_adds_is_left_alone() -> None:
    """It is begun anew after an upgrade; the daemon that asks it may not be."""
    assert checked("examine", {}, EXAMINED | {"more": 1}) == EXAMINED
    assert checked("listing", {"ids": ["a"]}, [ROW | {"more": [1]}]) == [ROW]
    assert checked("document", {"id": "a"}, DOCUMENT | {"more": 1}) == DOCUMENT | {"more": 1}


@pytest.mark.parametrize(
    ("question", "arguments", "answered"),
    [
        ("runner", {"id": "a"}, RUNNER),
        ("examine", {}, EXAMINED),
        ("accept", {}, {}),
        ("listing", {"ids": ["a"]}, [ROW]),
        ("listing", {"ids": None}, [ROW | {"id": "b"}]),
        ("document", {"id": "a"}, DOCUMENT),
        ("explain", {"id": "a"}, DOCUMENT | {"attempts": []}),
        ("progress", {"ids": ["a"]}, {"a": {}}),
        ("old", {}, {"ids": ["a"]}),
    ],
)
def test_an_answer_is_passed_on(question: str, arguments: Any, answered: Any) -> None:
    """What a good clerk says arrives as it was said."""
    assert checked(question, arguments, answered) == answered


@pytest.mark.parametrize(
    ("question", "arguments", "answered"),
    [
        ("runner", {"id": "a"}, RUNNER | {"pid": "5"}),
        ("runner", {"id": "a"}, RUNNER | {"pid": -1}),
        ("runner", {"id": "a"}, RUNNER | {"state": "flying"}),
        ("runner", {"id": "a"}, RUNNER | {"locked_by": 1 << 40}),
        ("runner", {"id": "a"}, None),
        ("examine", {}, EXAMINED | {"needs": NEEDS | {"cpus": -100}}),
        ("examine", {}, EXAMINED | {"needs": NEEDS | {"gpus": True}}),
        ("examine", {}, EXAMINED | {"stop_s": float("inf")}),
        ("examine", {}, EXAMINED | {"generation": 0}),
        ("listing", {"ids": ["a"]}, [ROW | {"id": "b"}]),
        ("listing", {"ids": ["a"]}, [ROW | {"id": ["a"]}]),
        ("listing", {"ids": ["a"]}, ["a"]),
        ("listing", {"ids": ["a"]}, [{"id": "a"}]),
        *(
            ("listing", {"ids": ["a"]}, [{key: ROW[key] for key in ROW if key != left_out}])
            for left_out in ROW
        ),
        ("listing", {"ids": ["a"]}, [ROW | {"name": "\x1b[2J"}]),
        ("listing", {"ids": ["a"]}, [ROW | {"created_at": None}]),
        ("listing", {"ids": ["a"]}, [ROW | {"created_at": "soon"}]),
        ("listing", {"ids": ["a"]}, [ROW | {"updated_at": 20260301}]),
        ("listing", {"ids": ["a"]}, [ROW | {"updated_at": "0001-01-01"}]),
        ("listing", {"ids": ["a"]}, [ROW | {"updated_at": "0001-01-01T00:00:00.000+23:00"}]),
        ("listing", {"ids": ["a"]}, [ROW | {"updated_at": "2026-02-30T12:03:04.250Z"}]),
        ("listing", {"ids": ["a"]}, [ROW | {"step": "x"}]),
        ("listing", {"ids": ["a"]}, [ROW | {"runner_pid": 1 << 80}]),
        ("listing", {"ids": ["a"]}, [ROW | {"why": {"deep": []}}]),
        ("listing", {"ids": ["a"]}, [ROW | {"folder": "/" * 5000}]),
        ("document", {"id": "a"}, DOCUMENT | {"state": "flying"}),
        ("document", {"id": "a"}, {"id": "a"}),
        ("document", {"id": "a"}, DOCUMENT | {"id": "b"}),
        ("document", {"id": "a"}, []),
        ("report", {"id": "a"}, {"id": "a"}),
        ("progress", {"ids": ["a"]}, {"b": {}}),
        ("old", {}, {"ids": ["../b"]}),
        ("stop", {}, {"heard": "yes"}),
        ("nothing", {}, {}),
    ],
)
def test_a_strange_answer_is_refused(question: str, arguments: Any, answered: Any) -> None:
    """A user who speaks through their clerk speaks of nobody else's jobs, and takes no less."""
    with pytest.raises(ShelfUnavailable, match="no answer"):
        checked(question, arguments, answered)


def test_every_question_has_a_shape() -> None:
    """No question was added whose answer nobody looks at."""
    from supervisor.daemon import clerk_answers  # noqa: PLC0415 - its table

    assert set(clerk_answers._SHAPES) == set(QUESTIONS)


def test_large_questions_go_in_parts() -> None:
    """Parts together ask what was asked, in order, and their answers are put together."""
    ids = [f"job-{number}" for number in range(2 * MOST_IDS + 1)]
    parts = list(parts_of("listing", {"ids": ids}))
    assert [len(one["ids"]) for one in parts] == [MOST_IDS, MOST_IDS, 1]
    assert together([one["ids"] for one in parts]) == ids
    jobs = [{"spec": "x" * 1_500_000, "at": number} for number in range(5)]
    groups = [one["jobs"] for one in parts_of("accept", {"jobs": jobs})]
    assert [len(one) for one in groups] == [2, 2, 1]
    assert together(groups) == jobs
    assert together([{"a": 1}, {"b": 2}]) == {"a": 1, "b": 2}
    assert list(parts_of("record", {"id": "a"})) == [{"id": "a"}]
