"""Slow disk work beside the event loop."""

import asyncio
import threading

import pytest

from supervisor.runner.disk import DiskThread


def test_results_and_exceptions_come_back_in_order():
    """Calls run one after the other, in one thread, with their own results."""

    async def use():
        disk = DiskThread()
        done = []
        await asyncio.gather(*(disk.run(done.append, number) for number in range(5)))
        threads = {await disk.run(threading.get_ident) for _ in range(3)}
        with pytest.raises(ZeroDivisionError):
            await disk.run(lambda: 1 // 0)
        disk.close()
        return done, threads

    done, threads = asyncio.run(use())
    assert done == [0, 1, 2, 3, 4]
    assert len(threads) == 1
    assert threads != {threading.get_ident()}


def test_no_exception_is_swallowed_by_the_way_back():
    """StopIteration is what a future refuses; its waiter must be told all the same."""

    async def use():
        disk = DiskThread()
        try:
            async with asyncio.timeout(5):
                await disk.run(next, iter(()))
        finally:
            disk.close()

    with pytest.raises(RuntimeError, match="StopIteration"):
        asyncio.run(use())


def test_work_that_never_returns_holds_nobody_up():
    """The waiter may go, the loop may end, and the late result is nobody's error."""
    begun, release = threading.Event(), threading.Event()

    def hang():
        begun.set()
        release.wait(10)

    async def use():
        disk = DiskThread()
        waiting = asyncio.ensure_future(disk.run(hang))
        await asyncio.to_thread(begun.wait, 5)
        waiting.cancel()
        await asyncio.wait({waiting})
        disk.close()
        return waiting.cancelled()

    assert asyncio.run(use())
    release.set()
    for thread in threading.enumerate():
        if thread.name == "disk":
            thread.join(5)
