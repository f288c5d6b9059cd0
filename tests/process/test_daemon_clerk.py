"""Clerks for real: processes of the user's that answer, hang, lie and die."""

import asyncio
import io
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from supervisor.daemon import clerk_process, shelves
from supervisor.daemon.clerk import serve
from supervisor.daemon.clerk_process import ClerkProcess, Post
from supervisor.daemon.contracts import Conflict, NoSuchJob, Refusal, ShelfUnavailable
from supervisor.daemon.launch_command import PYTHON
from supervisor.daemon.shelves import ClerkShelf, SystemShelves
from supervisor.host import processes
from tests.conftest import Eventually
from tests.process.other_users import (  # noqa: F401 - the fixtures are used by name
    GROUP,
    UID,
    a_passable,
    an_others_python,
    lookup,
)

Doing = Callable[[ClerkShelf], Coroutine[Any, Any, None]]
Use = Callable[..., None]


@pytest.fixture
def use(state_dir: Path) -> Use:
    """Give a way to do something with a shelf of this user's that clerks answer for."""

    def used(doing: Doing, python: tuple[str, ...] = PYTHON, idle_s: float = 60.0) -> None:
        async def whole() -> None:
            shelf = ClerkShelf(state_dir, lambda: Post(state_dir, None, python), idle_s)
            try:
                await doing(shelf)
            finally:
                await shelf.close()

        asyncio.run(whole())

    return used


def pid_of(shelf: ClerkShelf, *, slow: bool = False) -> int:
    """The process of the clerk that is there now."""
    clerk = shelf._lanes[slow].clerk
    assert clerk is not None
    return clerk.pid


def looked_into(pid: int) -> dict[str, Any]:
    """What a process has: its files, its environment, where it is, and who it is."""
    root = Path(f"/proc/{pid}")
    lines = (root / "status").read_text().splitlines()
    return {
        "files": [str(one.readlink()) for one in (root / "fd").iterdir()],
        "environ": (root / "environ").read_bytes(),
        "cwd": (root / "cwd").readlink(),
        "status": dict(line.split(":", 1) for line in lines),
    }


def is_gone(pid: int) -> bool:
    """Whether a process has ended, reaped or not."""
    return processes.living(pid) is None


@pytest.mark.usefixtures("unleaked")
def test_a_clerk_answers(use: Use, tmp_path: Path) -> None:
    """One process answers one question after the other; a refusal arrives as it was spoken."""

    async def doing(shelf: ClerkShelf) -> None:
        job = {"name": "net", "command": ["true"]}
        found = await shelf.ask("examine", {"job": job, "folder": str(tmp_path)})
        new = {"id": "net-1", "spec": found["spec"], "surroundings": None, "created_s": 1.0}
        await shelf.ask("accept", {"jobs": [new]})
        first = pid_of(shelf)
        assert (await shelf.ask("record", {"id": "net-1"}))["state"] == "queued"
        with pytest.raises(NoSuchJob, match="no job nobody"):
            await shelf.ask("record", {"id": "nobody"})
        with pytest.raises(Conflict):
            await shelf.ask("requeue", {"id": "net-1", "items": ["x"]})
        several = (shelf.ask("record", {"id": "net-1"}) for _ in range(20))
        assert {one["id"] for one in await asyncio.gather(*several)} == {"net-1"}
        assert pid_of(shelf) == first
        await shelf.ask("sweep", {})
        assert pid_of(shelf, slow=True) != first

    use(doing)


def test_what_is_asked_may_be_anything(use: Use) -> None:
    """What is no JSON, or too much, is refused before it is sent; text comes back as it went."""

    async def doing(shelf: ClerkShelf) -> None:
        with pytest.raises(Refusal, match="no JSON"):
            await shelf.ask("record", {"id": {1, 2}})
        with pytest.raises(Refusal, match="too many at once"):
            await shelf.ask("record", {"id": "x" * (20 << 20)})
        with pytest.raises(Refusal, match="no id of a job"):
            await shelf.ask("record", {"id": "\ud800\u00e4\n"})

    use(doing)


def test_a_clerk_that_is_killed_is_replaced(use: Use) -> None:
    """A reader who asked meanwhile hears nothing of it; who changes something is told."""

    async def doing(shelf: ClerkShelf) -> None:
        await shelf.ask("records", {})
        for question, arguments in (("records", {}), ("stop", {"id": "net"})):
            old = pid_of(shelf)
            os.kill(old, signal.SIGSTOP)
            asked = asyncio.ensure_future(shelf.ask(question, arguments))
            await asyncio.sleep(0)  # it is asked now
            os.kill(old, signal.SIGKILL)
            if question == "records":
                assert await asked == []
                assert pid_of(shelf) != old
            else:
                with pytest.raises(ShelfUnavailable, match=r"SIGKILL.*or not: look"):
                    await asked

    use(doing)


@pytest.mark.usefixtures("unleaked")
def test_many_who_asked_a_clerk_that_died(use: Use, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them are answered by one other clerk, and the dead one is seen out once."""
    ended: list[int] = []
    end = ClerkProcess.end

    async def counted(clerk: ClerkProcess) -> None:
        ended.append(clerk.pid)
        await end(clerk)

    monkeypatch.setattr(ClerkProcess, "end", counted)

    async def doing(shelf: ClerkShelf) -> None:
        await shelf.ask("records", {})
        old = pid_of(shelf)
        os.kill(old, signal.SIGSTOP)
        asked = [asyncio.ensure_future(shelf.ask("records", {})) for _ in range(20)]
        await asyncio.sleep(0)
        os.kill(old, signal.SIGKILL)
        assert await asyncio.gather(*asked) == [[]] * 20
        assert ended == [old]
        ended.append(pid_of(shelf))

    use(doing)
    assert ended[1:] == [ended[1]] * 2


@pytest.mark.usefixtures("unleaked")
def test_a_clerk_that_is_stopped_is_ended(
    use: Use, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    """Who asks it is told in time; it is ended, and another answers the next question."""
    monkeypatch.setattr(shelves, "ANSWER_S", 0.2)
    monkeypatch.setattr(clerk_process, "LEAVE_S", 0.1)

    async def doing(shelf: ClerkShelf) -> None:
        with suppress(ShelfUnavailable):  # its start may take longer than that
            await shelf.ask("records", {})
        monkeypatch.setattr(shelves, "ANSWER_S", 20.0)
        await shelf.ask("records", {})
        monkeypatch.setattr(shelves, "ANSWER_S", 0.2)
        old = pid_of(shelf)
        os.kill(old, signal.SIGSTOP)
        with pytest.raises(ShelfUnavailable, match="nobody answered"):
            await shelf.ask("records", {})
        monkeypatch.setattr(shelves, "ANSWER_S", 20.0)
        assert await shelf.ask("records", {}) == []
        await asyncio.to_thread(eventually, lambda: is_gone(old))

    use(doing)


def test_a_clerk_that_nobody_asks_leaves(use: Use, eventually: Eventually) -> None:
    """It goes after a while, and comes back when it is wanted."""

    async def doing(shelf: ClerkShelf) -> None:
        await shelf.ask("records", {})
        old = pid_of(shelf)
        await asyncio.to_thread(eventually, lambda: is_gone(old))
        assert shelf._lanes[False].clerk is None
        assert await shelf.ask("records", {}) == []

    use(doing, idle_s=0.05)


def test_who_stops_asking_disturbs_nobody(use: Use) -> None:
    """A question that was given up is answered to nobody; the clerk stays, and in step."""

    async def doing(shelf: ClerkShelf) -> None:
        await shelf.ask("records", {})
        old = pid_of(shelf)
        asked = asyncio.ensure_future(shelf.ask("listing", {"ids": None}))
        await asyncio.sleep(0)
        asked.cancel()
        with pytest.raises(NoSuchJob, match="net-7"):
            await shelf.ask("record", {"id": "net-7"})
        assert pid_of(shelf) == old

    use(doing)


def test_too_much_is_asked_at_once(use: Use, monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions do not pile up without bound before a clerk that does not answer."""
    monkeypatch.setattr(clerk_process, "MOST_ASKED", 2)

    async def doing(shelf: ClerkShelf) -> None:
        await shelf.ask("records", {})
        os.kill(pid_of(shelf), signal.SIGSTOP)
        asked = [asyncio.ensure_future(shelf.ask("records", {})) for _ in range(3)]
        done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        with pytest.raises(ShelfUnavailable, match="too much"):
            await done.pop()
        os.kill(pid_of(shelf), signal.SIGCONT)
        answered = await asyncio.gather(*asked, return_exceptions=True)
        assert [one for one in answered if one == []] == [[], []]

    use(doing)


HELLO = r"""printf '{"hello":1}\n' >&0; read -r asked; """


@pytest.mark.parametrize(
    ("says", "told"),
    [
        ("exit 3", "exit code 3"),
        ("echo 'no module named x' >&2; exit 1", "no module named x"),
        ("kill -9 $$", "SIGKILL"),
        ("printf 'rubbish\\n' >&0; cat >/dev/null", "cannot be understood"),
        (r"""printf '{"hello":99}\n' >&0; cat >/dev/null""", "cannot be understood"),
        (r"""printf '[]\n' >&0; cat >/dev/null""", "cannot be understood"),
        (HELLO + r"""printf '{"id":1,"answer":NaN}\n' >&0; cat >/dev/null""", "understood"),
        (HELLO + r"""printf '{"id":1,"answer":["\\ud800"]}\n' >&0; cat >/dev/null""", "understood"),
        (HELLO + "head -c 20000000 /dev/zero >&0; cat >/dev/null", "cannot be understood"),
        (
            HELLO + "head -c 100000 /dev/zero | tr '\\0' '[' >&0; echo >&0; cat >/dev/null",
            "underst",
        ),
        (HELLO + r"""printf '{"id":1,"answer":{"id":"net"}}\n' >&0; cat >/dev/null""", "no answer"),
        (HELLO + r"""printf '{"id":1,"refused":{"kind":"Peer","message":"m"}}\n' >&0; cat""", "m"),
    ],
)
def test_a_clerk_is_not_believed(use: Use, says: str, told: str) -> None:
    """A user may put anything in the place of their clerk; whoever asked is told, nothing else."""

    async def doing(shelf: ClerkShelf) -> None:
        with pytest.raises(ShelfUnavailable, match=told):
            await shelf.ask("records", {})

    use(doing, python=("/bin/sh", "-c", says))


def test_a_clerk_that_cannot_be_started(use: Use) -> None:
    """A missing interpreter is told."""

    async def doing(shelf: ClerkShelf) -> None:
        with pytest.raises(ShelfUnavailable, match="could not be started"):
            await shelf.ask("records", {})

    use(doing, python=("/nowhere/python",))


def test_a_clerk_is_given_nothing_of_the_daemons(
    use: Use, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No descriptor but its socket, none of what systemd says to the daemon, no terminal."""
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/nobody")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/nothing")

    async def doing(shelf: ClerkShelf) -> None:
        with (tmp_path / "secret").open("w") as secret:
            os.set_inheritable(secret.fileno(), bool(secret))
            await shelf.ask("records", {})
        pid = pid_of(shelf)
        given.update(await asyncio.to_thread(looked_into, pid))
        assert os.getsid(pid) == pid

    given: dict[str, Any] = {}
    use(doing)
    kinds = sorted(name.partition(":")[0] for name in given["files"])
    assert kinds == ["/dev/null", "pipe", "socket"]
    assert b"NOTIFY_SOCKET" not in given["environ"]
    assert b"CREDENTIALS" not in given["environ"]
    assert given["cwd"] == Path("/")


@pytest.fixture
def daemon_like(state_dir: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Give a process that has a clerk, which is stopped, and the clerk's pid."""
    code = f"""
import asyncio, os, pathlib, signal
from supervisor.daemon.shelves import *
async def main():
    shelves = SystemShelves(pathlib.Path({str(state_dir)!r}))
    shelf = shelves.of(os.geteuid())
    await shelf.ask("records", {{}})
    os.kill(shelf._lanes[False].clerk.pid, signal.SIGSTOP)
    print(shelf._lanes[False].clerk.pid, flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""
    state_dir.mkdir(mode=0o711)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as it:
        assert it.stdout
        yield it, int(it.stdout.readline())
        it.kill()


def test_a_clerk_ends_with_the_daemon(
    daemon_like: tuple[subprocess.Popen[str], int], eventually: Eventually
) -> None:
    """A daemon that is killed leaves no clerk, not even one that cannot notice it."""
    daemon, clerk = daemon_like
    assert not is_gone(clerk)
    daemon.kill()
    daemon.wait()
    eventually(lambda: is_gone(clerk))


def test_wrong_words_start_no_clerk() -> None:
    """Started by hand, or by a daemon that has gone meanwhile, it says or does nothing."""
    clerk = [sys.executable, "-m", "supervisor.daemon.clerk"]
    said = subprocess.run(clerk, capture_output=True, text=True, check=False)
    assert said.returncode == 2
    assert "usage" in said.stderr
    assert subprocess.run([*clerk, "/", "1"], check=False).returncode == 2


def of_somebody(passable: Path, python: tuple[str, ...], doing: Doing) -> None:
    """Do something with the shelf of another user."""
    state = passable / "state"
    state.mkdir(mode=0o711, exist_ok=True)

    async def whole() -> None:
        all_ = SystemShelves(state, lookup, python)
        try:
            await doing(all_.of(UID))  # type: ignore[arg-type] # it is one of these
        finally:
            await all_.close()

    asyncio.run(whole())


def test_a_clerk_is_the_users(passable: Path, others_python: tuple[str, ...]) -> None:
    """User, groups and home are theirs from the first instruction on, and so is what it writes."""

    async def doing(shelf: ClerkShelf) -> None:
        job = {"name": "net", "command": ["true"]}
        found = await shelf.ask("examine", {"job": job, "folder": "/"})
        new = {"id": "net-1", "spec": found["spec"], "surroundings": None, "created_s": 1.0}
        await shelf.ask("accept", {"jobs": [new]})
        status = (await asyncio.to_thread(looked_into, pid_of(shelf)))["status"]
        assert status["Uid"].split() == status["Gid"].split() == [str(UID)] * 4
        assert sorted(map(int, status["Groups"].split())) == [UID, GROUP]
        assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
        journal = (shelf.path / "journal.sqlite").stat()
        assert (journal.st_uid, stat.S_IMODE(journal.st_mode)) == (UID, 0o600)

    of_somebody(passable, others_python, doing)


def test_a_link_in_a_users_folder_leads_nowhere(
    passable: Path, others_python: tuple[str, ...]
) -> None:
    """What a user puts in the journal's place, or in a log's, is opened with their rights alone."""
    secret = passable / "secret"
    secret.write_text("root's own")
    secret.chmod(0o600)

    async def doing(shelf: ClerkShelf) -> None:
        (shelf.path / "journal.sqlite").symlink_to(secret)
        with pytest.raises(ShelfUnavailable, match="cannot be used"):
            await shelf.ask("records", {})
        new = {"id": "net-1", "spec": "{}", "surroundings": None, "created_s": 1.0}
        with pytest.raises(ShelfUnavailable, match="cannot be used"):
            await shelf.ask("accept", {"jobs": [new]})
        (shelf.path / "journal.sqlite").unlink()
        assert await shelf.ask("records", {}) == []

    of_somebody(passable, others_python, doing)
    assert secret.read_text() == "root's own"
    assert sorted(one.name for one in passable.iterdir()) == ["secret", "state"]


def test_a_folder_that_is_not_theirs_any_more(
    passable: Path, others_python: tuple[str, ...]
) -> None:
    """The folder is looked at again before each clerk: one that was exchanged is not served."""

    async def doing(shelf: ClerkShelf) -> None:
        await shelf.ask("records", {})
        clerk = shelf._lanes[False].clerk
        assert clerk is not None
        shelf._lanes[False]._dismiss(clerk)
        shelf.path.rename(passable / "away")
        shelf.path.symlink_to(passable / "away")
        with pytest.raises(ShelfUnavailable, match="cannot be used"):
            await shelf.ask("records", {})

    of_somebody(passable, others_python, doing)


def test_lines_in_and_lines_out(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each question has its answer; one that is too long is refused; rubbish ends the talk."""
    monkeypatch.setattr("supervisor.daemon.clerk.LONGEST_LINE", 150)
    asked = [
        {"id": 1, "question": "records", "arguments": {}},
        {"id": 2, "question": "nothing", "arguments": {}},
        {"id": "x" * 30, "question": "events", "arguments": {"id": "\u00e4" * 12}},
        ["rubbish"],
        {"id": 4, "question": "records", "arguments": {}},
    ]
    lines = b"".join(json.dumps(one, ensure_ascii=False).encode() + b"\n" for one in asked)
    told = io.BytesIO()
    serve(io.BytesIO(lines), told, state_dir)
    answers = [json.loads(line) for line in told.getvalue().splitlines()]
    assert answers[:2] == [{"hello": 1}, {"id": 1, "answer": []}]
    assert answers[2]["refused"] == {"kind": "Refusal", "message": "nobody answers 'nothing'"}
    assert "ask for a part" in answers[3]["refused"]["message"]
    assert len(answers) == 4
