"""Who is let in, and as whom."""

import asyncio
import grp
import os
import pwd
import threading

import pytest

from supervisor.daemon.api.asking import PEER
from supervisor.daemon.api.errors import NotAllowed
from supervisor.daemon.api.gate import CREDENTIALS, Entry, Gate, is_this_host
from supervisor.daemon.api.limits import Limits
from supervisor.daemon.peers import Credentials, Peers

ADA, STRANGER = 4001, 4002
TOKEN = "t" * 43


@pytest.fixture
def users(monkeypatch):
    """Give this host a user ada, in the group of admins; `groups` may be changed."""
    groups = {"ada": [4001, 77]}
    entry = pwd.struct_passwd(("ada", "x", ADA, ADA, "", "/home/ada", "/bin/sh"))

    def by_uid(uid):
        if uid != ADA:
            raise KeyError(uid)
        return entry

    monkeypatch.setattr(pwd, "getpwuid", by_uid)
    monkeypatch.setattr(grp, "getgrnam", lambda _: grp.struct_group(("admins", "x", 77, [])))
    monkeypatch.setattr(os, "getgrouplist", lambda name, _gid: groups[name])
    return groups


def test_an_admin_is_one_until_a_minute_after_leaving_the_group(users):
    """What the lists say is believed for a while, and not longer."""
    now = 0.0
    peers = Peers("admins", clock=lambda: now)
    seen = Credentials(1, ADA, ADA)
    assert asyncio.run(peers.of(seen)).admin
    users["ada"] = [ADA]
    assert asyncio.run(peers.of(seen)).admin
    now = 60.0
    peer = asyncio.run(peers.of(seen))
    assert (peer.name, peer.admin) == ("ada", False)


@pytest.mark.usefixtures("users")
def test_the_group_of_a_process_makes_nobody_an_admin(monkeypatch):
    """A set-group-id program that a removed admin has kept still runs as that group."""
    monkeypatch.setattr(os, "getgrouplist", lambda _name, gid: [gid])
    assert not asyncio.run(Peers("admins").of(Credentials(1, ADA, 77))).admin


@pytest.mark.usefixtures("users")
def test_who_has_no_name_is_a_number_and_no_admin():
    """An unknown uid is served as itself; root is an admin even without a name."""
    peers = Peers("admins")
    peer = asyncio.run(peers.of(Credentials(1, STRANGER, 77)))
    assert (peer.uid, peer.name, peer.admin) == (STRANGER, str(STRANGER), False)
    assert asyncio.run(peers.of(Credentials(1, 0, 0))).admin


@pytest.mark.usefixtures("users")
def test_a_users_own_daemon_serves_nobody_else():
    """Others are refused; root asks on the user's behalf, under its own name."""
    peers = Peers(only=ADA)
    with pytest.raises(NotAllowed, match="this daemon serves ada alone"):
        asyncio.run(peers.of(Credentials(1, STRANGER, STRANGER)))
    own = asyncio.run(peers.of(Credentials(1, ADA, ADA)))
    root = asyncio.run(peers.of(Credentials(1, 0, 0)))
    assert (own.uid, own.name, own.admin) == (ADA, "ada", True)
    assert (root.uid, root.admin) == (ADA, True)


def test_a_user_of_another_namespace_is_nobody():
    """The kernel shows all of them as one user: they would see each other's jobs."""
    peers = Peers()
    with pytest.raises(NotAllowed, match="nobody here"):
        asyncio.run(peers.of(Credentials(1, peers._nobody, 0)))


def test_a_directory_service_that_hangs_keeps_nobody_waiting(monkeypatch):
    """Who cannot be looked up in time is a number, and the loop went on meanwhile; one look-up."""
    release, looks = threading.Event(), []

    def stuck(uid):
        looks.append(uid)
        release.wait(20)
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", stuck)
    monkeypatch.setattr("supervisor.daemon.peers.LOOK_UP_S", 0.05)
    peers = Peers("admins")

    async def three():
        seen = Credentials(1, STRANGER, STRANGER)
        try:
            return await asyncio.gather(*(peers.of(seen) for _ in range(3)))
        finally:
            release.set()

    assert {(one.name, one.admin) for one in asyncio.run(three())} == {(str(STRANGER), False)}
    assert looks == [STRANGER]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("LOCALHOST:8750", True),
        ("localhost.", True),
        ("127.0.0.1:8750", True),
        ("[::1]:8750", True),
        ("::1", False),
        ("10.0.0.7", True),
        ("gpu1", True),
        ("gpu1.evil.example", False),
        ("evil.example:8750", False),
        ("127.0.0.1.evil.example", False),
        ("localhost@evil.example", False),
        ("", False),
        ("[::1", False),
    ],
)
def test_a_host_header_must_mean_this_host(host, expected):
    """A name that somebody else could point here is refused: that is how DNS rebinding works."""
    assert is_this_host(host, frozenset({"localhost", "gpu1"})) is expected


def _through(state, headers, token=TOKEN, limits=None):
    """Ask through a gate; the status, and the peer that came through."""
    sent, seen = [], []

    async def app(scope, _receive, send):
        seen.append(scope["state"][PEER])
        await send({"type": "http.response.start", "status": 200})

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "state": dict(state), "headers": headers, "path": "/"}
    gate = Gate(app, Entry(Peers(), limits or Limits(), token), clock=lambda: 0.0)
    asyncio.run(gate(scope, None, send))
    return sent[0]["status"], seen


HOST = (b"host", b"localhost:8750")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([HOST, (b"authorization", b"Bearer " + TOKEN.encode())], 200),
        ([HOST, (b"authorization", b"bearer " + TOKEN.encode())], 200),
        ([HOST], 401),
        ([HOST, (b"authorization", b"Bearer ")], 401),
        ([HOST, (b"authorization", b"Bearer " + b"u" * 43)], 401),
        ([HOST, (b"authorization", b"Basic " + TOKEN.encode())], 401),
        ([HOST, (b"authorization", b"Bearer \xff\xfe")], 401),
        ([HOST, *[(b"authorization", b"Bearer " + TOKEN.encode())] * 2], 401),
        ([(b"authorization", b"Bearer " + TOKEN.encode())], 421),
        ([HOST, (b"host", b"localhost"), (b"authorization", b"Bearer " + TOKEN.encode())], 421),
        ([(b"host", b"evil.example"), (b"authorization", b"Bearer " + TOKEN.encode())], 421),
    ],
)
def test_over_tcp_a_token_and_our_name_are_wanted(headers, status):
    """One token, one Host that is ours; nothing else gets in."""
    found, peers = _through({}, headers)
    assert found == status
    assert [one.uid for one in peers] == [os.geteuid()] * (status == 200)


def test_without_a_token_nobody_comes_in_over_tcp():
    """No token is no empty token."""
    assert _through({}, [HOST, (b"authorization", b"Bearer ")], token=None)[0] == 401


def test_on_a_unix_socket_the_kernels_word_counts_alone():
    """Neither Host nor token are looked at there."""
    status, peers = _through({CREDENTIALS: Credentials(7, 0, 0)}, [(b"host", b"evil.example")])
    assert status == 200
    assert (peers[0].uid, peers[0].pid) == (0, 7)


def test_a_large_body_costs_more_of_the_rate():
    """What takes longer to serve takes more of a user's share."""
    state = {CREDENTIALS: Credentials(7, 0, 0)}
    limits = Limits(burst=10, requests_per_s=1, cost_bytes=100)
    assert _through(state, [(b"content-length", b"100")], limits=limits)[0] == 200
    sent = []

    async def twice():
        async def app(_scope, _receive, send):
            await send({"type": "http.response.start", "status": 200})

        async def send(message):
            if message["type"] == "http.response.start":
                sent.append(message["status"])

        gate = Gate(app, Entry(Peers(), limits), clock=lambda: 0.0)
        for _ in range(2):
            headers = [(b"content-length", b"700")]
            scope = {"type": "http", "state": dict(state), "headers": headers, "path": "/"}
            await gate(scope, None, send)

    asyncio.run(twice())
    assert sent == [200, 429]
