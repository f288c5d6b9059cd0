"""The runner's end of a worker's channel: nothing said is lost, and nobody is held up."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from supervisor.runner.crew import channel as module
from supervisor.runner.crew.channel import Channel
from workers.lines import LEAVE, LEFT, ProtocolBroken, encode_begin, encode_done
from workers.messages import Begun, Done, Left, Report

SOON_S = 10.0


@asynccontextmanager
async def opened() -> AsyncIterator[tuple[Channel, socket.socket]]:
    """A channel, and the worker's end of it."""
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    try:
        yield channel, theirs
    finally:
        channel.close()
        theirs.close()


def within(test: Callable[[], Awaitable[None]]) -> None:
    """Run it with a deadline."""

    async def run() -> None:
        async with asyncio.timeout(SOON_S):
            await test()

    asyncio.run(run())


def test_what_is_said_is_read_when_it_comes() -> None:
    """Whole lines only, in order, and the end as nothing."""

    async def test() -> None:
        async with opened() as (channel, theirs):
            reading = asyncio.ensure_future(channel.read())
            await asyncio.sleep(0)
            theirs.sendall(encode_begin([1]) + b"done 1 0.5")
            assert await reading == [Begun((1,))]
            theirs.sendall(b" 7\n")
            theirs.close()
            assert await channel.read() == [Done(1, 0.5, b"7")]
            assert await channel.read() == []

    within(test)


def test_what_comes_before_a_broken_line_is_heard() -> None:
    """The item that broke it is known only by what was announced just before."""

    async def test() -> None:
        async with opened() as (channel, theirs):
            theirs.sendall(encode_done(1, 1, b"1") + encode_begin([2]) + b"what?\n" + LEFT)
            assert await channel.read() == [Done(1, 1.0, b"1"), Begun((2,))]
            with pytest.raises(ProtocolBroken, match="what"):
                await channel.read()

    within(test)


def test_a_reading_that_is_cancelled_loses_nothing() -> None:
    """Cancelled in the very moment in which something came: the next reading has it."""

    async def test() -> None:
        async with opened() as (channel, theirs):
            for number in range(200):
                reading = asyncio.ensure_future(channel.read())
                for _ in range(number % 4):
                    await asyncio.sleep(0)
                theirs.sendall(encode_begin([number + 1]))
                for _ in range(number % 5):
                    await asyncio.sleep(0)
                heard: list[Report] = []
                if not reading.cancel():
                    heard = reading.result()
                with suppress(asyncio.CancelledError):
                    heard = await reading
                assert (heard or await channel.read()) == [Begun((number + 1,))]

    within(test)


def test_when_the_worker_has_ended_what_lies_unread_is_the_last() -> None:
    """Although a process that it left behind still holds its end open."""

    async def test() -> None:
        async with opened() as (channel, theirs):
            theirs.sendall(LEFT)
            channel.finish()
            assert await channel.read() == [Left()]
            assert await channel.read() == []

    within(test)


def test_whoever_waits_is_woken_by_the_workers_end() -> None:
    """Nothing more comes, and nobody closes the other end."""

    async def test() -> None:
        async with opened() as (channel, _):
            reading = asyncio.ensure_future(channel.read())
            for _ in range(3):
                await asyncio.sleep(0)
            channel.finish()
            assert await reading == []

    within(test)


def test_what_a_worker_left_behind_says_for_ever_is_not_heard_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After the worker's end only so much counts as a socket holds."""
    monkeypatch.setattr(module, "UNREAD_BYTES", 3 * module.READ_BYTES)

    async def test() -> None:
        async with opened() as (channel, theirs):
            theirs.settimeout(0)
            channel.finish()
            heard = 0
            while True:
                with suppress(BlockingIOError):
                    theirs.send(LEFT * 20_000)
                said = await channel.read()
                if not said:
                    break
                heard += len(said)
            assert 0 < heard <= 4 * module.READ_BYTES

    within(test)


def test_one_that_never_pauses_lets_others_have_their_turn() -> None:
    """The loop goes round once for each reading at least."""

    async def test() -> None:
        async with opened() as (channel, theirs):
            turns = 0

            def turn() -> None:
                nonlocal turns
                turns += 1
                asyncio.get_running_loop().call_soon(turn)

            turn()
            for _ in range(20):
                theirs.sendall(LEFT)
                assert await channel.read() == [Left()]
            assert turns >= 20

    within(test)


def test_orders_wait_for_a_worker_that_does_not_read() -> None:
    """Nobody is held up; all of it arrives in the end, in order."""

    async def test() -> None:
        async with opened() as (channel, theirs):
            line = b"x" * 100_000 + b"\n"
            for _ in range(30):
                channel.send(line)
            channel.leave()
            got = bytearray()
            theirs.settimeout(0)
            while not got.endswith(LEAVE):
                await asyncio.sleep(0)
                with suppress(BlockingIOError):
                    got += theirs.recv(1 << 20)
            assert bytes(got) == line * 30 + LEAVE

    within(test)


def test_orders_to_a_worker_that_is_gone_are_forgotten() -> None:
    """Its end is told by others."""

    async def test() -> None:
        async with opened() as (channel, theirs):
            theirs.close()
            channel.send(b"do\n")
            channel.leave()
            assert await channel.read() == []

    within(test)


def test_a_worker_that_went_without_reading_is_an_end() -> None:
    """The kernel says `reset` where orders lie unread at its end."""

    async def test() -> None:
        async with opened() as (channel, theirs):
            channel.send(b"do\n")
            theirs.close()
            assert await channel.read() == []

    within(test)
