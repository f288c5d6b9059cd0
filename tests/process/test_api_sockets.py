"""Where the daemon listens: what is made, what is replaced, and what is refused."""

import asyncio
import os
import socket
import stat
from pathlib import Path

import pytest

from supervisor.daemon.api.bearer import token_of
from supervisor.daemon.api.sockets import SocketRefused, bind_tcp, bind_unix
from supervisor.daemon.serve import Doors, Server, serve
from tests.api_server import answer_on, served

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user: needs root")


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_a_socket_is_for_its_owner_alone(tmp_path, umask):
    """Mode 0600, whatever the umask; when it is closed the name is gone."""
    before = os.umask(umask)
    try:
        bound = bind_unix(tmp_path / "s")
    finally:
        os.umask(before)
    assert _mode(tmp_path / "s") == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["s"]
    bound.close()
    assert list(tmp_path.iterdir()) == []


@needs_root
def test_a_group_may_be_let_in(tmp_path):
    """Mode 0660 and the group, and no group that does not exist."""
    bound = bind_unix(tmp_path / "s", "nogroup")
    try:
        found = (tmp_path / "s").lstat()
        assert (_mode(tmp_path / "s"), found.st_gid) == (0o660, 65534)
    finally:
        bound.close()
    with pytest.raises(SocketRefused, match="groupadd --system no-such-group"):
        bind_unix(tmp_path / "s", "no-such-group")
    assert list(tmp_path.iterdir()) == []


def test_a_dead_daemons_socket_is_replaced(tmp_path):
    """What nobody listens on any more is no obstacle."""
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / "s"))
    left.close()
    bound = bind_unix(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "s"))
    bound.close()
    assert list(tmp_path.iterdir()) == []


def test_a_living_daemons_socket_is_not(tmp_path):
    """The second daemon is told; the first one is reached as before."""
    first = bind_unix(tmp_path / "s")
    try:
        with pytest.raises(SocketRefused, match="a daemon listens at "):
            bind_unix(tmp_path / "s")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "s"))
    finally:
        first.close()


def test_a_busy_daemons_socket_is_not_either(tmp_path):
    """One that accepts nobody at the moment is alive all the same."""
    busy = socket.socket(socket.AF_UNIX)
    busy.bind(str(tmp_path / "s"))
    busy.listen(0)
    with busy, socket.socket(socket.AF_UNIX) as waiting:
        waiting.connect(str(tmp_path / "s"))
        with pytest.raises(SocketRefused, match="already"):
            bind_unix(tmp_path / "s")


def test_the_name_of_a_successor_is_left_alone(tmp_path):
    """Closing removes our own socket, not the one that has taken its place."""
    first = bind_unix(tmp_path / "s")
    (tmp_path / "s").unlink()
    second = bind_unix(tmp_path / "s")
    first.close()
    assert (tmp_path / "s").is_socket()
    second.close()


def _link(path: Path) -> None:
    path.symlink_to(path.with_name("elsewhere"))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_link, "is a symbolic link"),
        (Path.touch, "is no socket"),
        (Path.mkdir, "is no socket"),
        (os.mkfifo, "is no socket"),
    ],
)
def test_what_is_no_socket_is_left_alone(tmp_path, make, words):
    """It is named, and it is still there."""
    make(tmp_path / "s")
    before = (tmp_path / "s").lstat()
    with pytest.raises(SocketRefused, match=words):
        bind_unix(tmp_path / "s")
    assert (tmp_path / "s").lstat() == before


@needs_root
def test_somebody_elses_socket_or_folder_is_refused(tmp_path):
    """Who owns the folder could put a socket of theirs there."""
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / "s"))
    left.close()
    os.chown(tmp_path / "s", NOBODY, NOBODY)
    with pytest.raises(SocketRefused, match=f"belongs to user {NOBODY}"):
        bind_unix(tmp_path / "s")
    os.chown(tmp_path, NOBODY, NOBODY)
    with pytest.raises(SocketRefused, match=f"belongs to user {NOBODY}, who could"):
        bind_unix(tmp_path / "other")


def test_a_folder_that_others_write_to_is_refused(tmp_path):
    """Unless it is sticky, as /tmp is."""
    tmp_path.chmod(0o777)
    with pytest.raises(SocketRefused, match="chmod go-w"):
        bind_unix(tmp_path / "s")
    tmp_path.chmod(0o1777)
    bind_unix(tmp_path / "s").close()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_named(tmp_path):
    """An error of the file system is told in words."""
    with pytest.raises(SocketRefused, match=r"no/s cannot be listened on: No such file"):
        bind_unix(tmp_path / "no" / "s")


def test_a_path_longer_than_an_address(tmp_path):
    """A deep state folder is served; a name that no client could dial is refused."""
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    with served(deep) as one:
        assert one.ask("GET", "/v1/daemon").status == 200
    with pytest.raises(SocketRefused, match="too long a name"):
        bind_unix(tmp_path / ("s" * 90))


@pytest.mark.parametrize(
    "text", ["", "x", "70000", "-1", "evil.example:80", "1.2.3.4:", "²:5", "²"]
)
def test_what_is_no_tcp_address(text):
    """Each is refused before anything is bound."""
    with pytest.raises(SocketRefused):
        bind_tcp(text)


@pytest.mark.parametrize("text", ["0", ":0", "127.0.0.1:0", "localhost:0"])
def test_tcp_is_on_loopback(text):
    """Nothing else, unless it was said."""
    with bind_tcp(text) as sock:
        assert sock.getsockname()[0] == "127.0.0.1"


def test_a_taken_port_is_refused():
    """In words, with the address."""
    with bind_tcp("0") as sock:
        address = f"127.0.0.1:{sock.getsockname()[1]}"
        with pytest.raises(SocketRefused, match=f"{address} cannot be listened on"):
            bind_tcp(address)


def test_a_token_is_made_once(tmp_path):
    """For us alone; the second daemon reads the same."""
    made = token_of(tmp_path / "token")
    assert (len(made), _mode(tmp_path / "token")) == (43, 0o600)
    assert token_of(tmp_path / "token") == made
    assert [one.name for one in tmp_path.iterdir()] == ["token"]


def _spoil(path: Path, how: str) -> None:
    path.write_text("t" * 43 + "\n")
    path.chmod(0o600)
    if how == "readable":
        path.chmod(0o640)
    elif how == "short":
        path.write_text("secret")
    elif how == "empty":
        path.write_text("")
    elif how == "spaces":
        path.write_text("two words " * 5)
    elif how == "binary":
        path.write_bytes(os.urandom(64))
    elif how == "link":
        path.rename(path.with_name("real"))
        path.symlink_to("real")
    elif how == "folder":
        path.unlink()
        path.mkdir(mode=0o700)
    elif how == "pipe":
        path.unlink()
        os.mkfifo(path, 0o600)
    else:
        os.chown(path, NOBODY, NOBODY)


@pytest.mark.parametrize(
    "how",
    [
        *("readable", "short", "empty", "spaces", "binary", "link", "folder", "pipe"),
        pytest.param("stranger", marks=needs_root),
    ],
)
def test_a_bad_token_is_not_used(tmp_path, how):
    """What others could have read or chosen, or a person could guess, is refused, not replaced."""
    _spoil(tmp_path / "token", how)
    with pytest.raises(SocketRefused, match="token"):
        token_of(tmp_path / "token")


def test_over_tcp_the_token_opens(tmp_path):
    """With it the API answers; without, or for another host's name, it does not."""
    doors = {"path": None, "tcp": "0", "token_file": tmp_path / "token"}
    with served(tmp_path, **(doors | {"path": tmp_path / "s"})) as one:
        port = one.server.sockets[-1].getsockname()[1]
        token = (tmp_path / "token").read_text().strip()
        found = [
            _over_tcp(port, f"localhost:{port}", token),
            _over_tcp(port, f"localhost:{port}", None),
            _over_tcp(port, f"localhost:{port}", "wrong" * 9),
            _over_tcp(port, "evil.example", token),
        ]
    assert found == [(200, None), (401, "unauthorized"), (401, "unauthorized"), (421, "wrong_host")]


def _over_tcp(port: int, host: str, token: str | None) -> tuple[int, str | None]:
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        bearer = f"Authorization: Bearer {token}\r\n" if token else ""
        sock.sendall(f"GET /v1/daemon HTTP/1.1\r\nHost: {host}\r\n{bearer}\r\n".encode())
        answer = answer_on(sock)
        return answer.status, None if answer.status == 200 else answer.kind


@pytest.mark.parametrize(
    ("doors", "words"),
    [
        ({"tcp": "0"}, "without a token"),
        ({}, "no socket is named"),
    ],
)
def test_doors_that_make_no_sense(doors, words):
    """They are refused before anything is served."""
    with pytest.raises(SocketRefused, match=words):
        Server(None, Doors(**doors)).bind()


def test_when_one_door_cannot_be_had_none_is_kept(tmp_path):
    """A daemon that cannot begin leaves no socket behind."""
    with pytest.raises(SocketRefused):
        Server(None, Doors(path=tmp_path / "s", tcp="nonsense")).bind()
    assert list(tmp_path.iterdir()) == []


def test_a_socket_that_was_handed_over_is_served(tmp_path):
    """As systemd does it: bound and listening before; its name is not ours to remove."""
    handed = socket.socket(socket.AF_UNIX)
    handed.bind(str(tmp_path / "s"))
    handed.listen()
    with served(tmp_path, handed=[handed]) as one:
        assert one.ask("GET", "/v1/daemon").status == 200
    assert (tmp_path / "s").is_socket()


def test_what_is_handed_over_must_listen():
    """A socket of another kind is a mistake in the unit, and is named."""
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as handed,
        pytest.raises(SocketRefused, match="no socket that listens"),
    ):
        Server(None, Doors(handed=[handed])).bind()


def test_serve_ends_when_it_is_told(tmp_path):
    """And the name is gone, so that the next daemon finds nothing in its way."""
    from supervisor.daemon.api.app import make_app  # noqa: PLC0415 - this test alone
    from tests.api_daemon import FakeDaemon  # noqa: PLC0415 - this test alone

    async def briefly() -> bool:
        until = asyncio.Event()
        serving = asyncio.ensure_future(
            serve(make_app(FakeDaemon()), Doors(path=tmp_path / "s"), until)
        )
        while not (tmp_path / "s").exists():  # noqa: ASYNC110 - it takes a few turns of the loop
            await asyncio.sleep(0)
        until.set()
        await serving
        return (tmp_path / "s").exists()

    assert asyncio.run(briefly()) is False
