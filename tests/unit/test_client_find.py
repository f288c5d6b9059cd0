"""Which daemon serves, where its jobs are, what streams say, and what the index reads."""

import io
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.client import find
from supervisor.client.errors import ClientError, NoDaemon
from supervisor.client.find import daemon_or_none, find_daemon, shelf_of
from supervisor.client.index import known_jobs
from supervisor.client.streams import Said, events_of
from supervisor.client.tcp import connection_to
from supervisor.journal import JobRecord, Journal, JournalUnusable
from tests.unit.fake_daemon import FakeDaemon, served


@pytest.fixture
def own(state_dir: Path) -> Iterator[FakeDaemon]:
    """The daemon of a state folder."""
    with served(FakeDaemon(state_dir / "daemon.sock", state_dir)) as one:
        yield one


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDaemon]:
    """The daemon of the host."""
    monkeypatch.setattr(find, "SYSTEM_SOCKET", tmp_path / "run/supervise.sock")
    daemon = FakeDaemon(tmp_path / "run/supervise.sock", tmp_path / "var", system=True)
    with served(daemon) as one:
        yield one


def default_state_dir() -> Path:
    """Where a person's jobs are who says nothing."""
    return find.default_state_dir().absolute()


def test_the_daemon_of_the_state_folder_comes_first(
    own: FakeDaemon, hosts: FakeDaemon, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its jobs are in that very folder."""
    monkeypatch.setattr(find, "default_state_dir", lambda: state_dir)
    with find_daemon(state_dir).connection as found:
        assert found.where == str(own.socket)
    found_ = find_daemon(state_dir)
    with found_.connection:
        assert (found_.system, shelf_of(found_, state_dir)) == (False, state_dir)
    assert hosts.connections == 0


def test_the_daemon_of_the_host_serves_who_names_no_folder(hosts: FakeDaemon) -> None:
    """A person's jobs are on a shelf of their own."""
    found = find_daemon(default_state_dir())
    with found.connection:
        shelf = shelf_of(found, default_state_dir())
    assert (found.system, shelf) == (True, hosts.state_dir / "users" / str(os.getuid()))


def test_who_names_a_folder_means_no_other_jobs(hosts: FakeDaemon, tmp_path: Path) -> None:
    """The host's daemon is not asked, or a job would be where nobody looks for it."""
    with pytest.raises(NoDaemon, match=str(tmp_path / "mine/daemon.sock")):
        find_daemon(tmp_path / "mine")
    assert daemon_or_none(tmp_path / "mine") is None
    assert hosts.connections == 0


def test_no_daemon_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both places are named."""
    monkeypatch.setattr(find, "SYSTEM_SOCKET", tmp_path / "none.sock")
    with pytest.raises(NoDaemon, match=r"daemon\.sock or .*none\.sock"):
        find_daemon(default_state_dir())


@pytest.mark.parametrize(
    "url",
    ["127.0.0.1", "127.0.0.1:80", "ftp://127.0.0.1", "http://", "http://h:x", "http://h/v1?a"],
)
def test_an_address_that_is_none(url: str) -> None:
    """It is said how one looks."""
    with pytest.raises(ClientError, match=r"is not an address: write it as http://127"):
        connection_to(url, None)


@pytest.mark.parametrize("url", ["http://10.0.0.7:8750", "http://gpu.example:8750"])
def test_a_token_is_not_sent_for_everybody_to_read(url: str) -> None:
    """Over a network only encrypted, or through a tunnel."""
    with pytest.raises(ClientError, match="would travel unencrypted"):
        connection_to(url, "secret")


def test_a_far_daemon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """SUPERVISE_URL comes before every socket; its jobs are not in our folders."""
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    monkeypatch.setenv("SUPERVISE_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("SUPERVISE_TOKEN_FILE", str(token))

    found = find_daemon(tmp_path)

    assert (found.far, shelf_of(found, tmp_path)) == (True, None)
    assert found.connection._headers["Authorization"] == "Bearer s3cret"
    with pytest.raises(NoDaemon, match="http://127"):  # nobody listens on port 1
        found.connection.request("GET", "/v1/daemon")


@pytest.mark.parametrize("content", [b"", b"two words", b"\xff\xfe", None])
def test_a_token_file_that_is_no_good(
    content: bytes | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An empty token would be sent as none, and the refusal would be a riddle."""
    token = tmp_path / "token"
    if content is not None:
        token.write_bytes(content)
    monkeypatch.setenv("SUPERVISE_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("SUPERVISE_TOKEN_FILE", str(token))
    with pytest.raises(ClientError, match="SUPERVISE_TOKEN_FILE"):
        find_daemon(tmp_path)


def test_server_sent_events() -> None:
    """Comments are silence, several data lines are one text, half an event is none."""
    text = (
        b': here\n\nevent: log\nid: 7\ndata: {"a":\ndata: 1}\n\n'
        b"data:plain words\r\n\r\nid: 9\n\nevent: end\ndata: {}\n\ndata: cut"
    )
    assert list(events_of(io.BytesIO(text))) == [
        Said("log", {"a": 1}, "7"),
        Said("message", "plain words"),
        Said("end", {}),
    ]


def accepted(state_dir: Path, *ids: str, spec: str = "{}") -> None:
    """Let a journal have jobs."""
    journal = Journal.open(state_dir)
    for number, one in enumerate(ids):
        row = {"id": one, "name": "net", "folder": "/data", "state": "queued", "why": ""}
        nothing = ("step", "total", "runner_pid", "runner_ticks", "boot_id")
        rest = dict.fromkeys(nothing)
        times = {"created_s": float(number), "updated_s": float(number)}
        journal.create_job(JobRecord(**row, **times, **rest, spec=spec))
    journal.close()


def test_the_index_reads_what_the_journal_has(state_dir: Path, tmp_path: Path) -> None:
    """The same jobs in the same order, without loading the journal; several places together."""
    spec = '{"format": 1, "job": {"source": "/data/job.yaml", "command": ["x"], "folder": "/data"}}'
    accepted(state_dir, "net-000001", "net-000002", spec=spec)
    accepted(tmp_path / "other", "net-000003", spec="no json")

    found = known_jobs([state_dir, tmp_path / "other", tmp_path / "none"])
    with_sources = known_jobs([state_dir, tmp_path / "other"], sources=True)

    assert [one.id for one in found] == ["net-000001", "net-000003", "net-000002"]
    assert [one.source for one in found] == [None, None, None]
    assert [one.source for one in with_sources] == ["/data/job.yaml", None, "/data/job.yaml"]
    journal = Journal.open(state_dir)
    rows = [(one.id, one.name, one.folder, one.state) for one in journal.jobs()]
    journal.close()
    mine = [one for one in found if one.place == state_dir]
    assert [(one.id, one.name, one.folder, one.state) for one in mine] == rows


def test_a_journal_that_the_index_cannot_read(state_dir: Path) -> None:
    """What is wrong with it is told in the journal's words."""
    accepted(state_dir, "net-000001")
    (state_dir / "journal.sqlite").write_bytes(b"not a database, and longer than its header" * 9)
    with pytest.raises(JournalUnusable, match="damaged"):
        known_jobs([state_dir])


def test_a_locked_journal_is_still_read(state_dir: Path) -> None:
    """A writer in the middle of its transaction keeps nobody from reading."""
    accepted(state_dir, "net-000001")
    writer = sqlite3.connect(state_dir / "journal.sqlite", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    try:
        assert [one.id for one in known_jobs([state_dir])] == ["net-000001"]
    finally:
        writer.close()
