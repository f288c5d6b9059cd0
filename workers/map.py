"""The batch worker: loads an entry once, then calls it with the items that the runner hands out.

Owns the order of things within one worker. Never decides about items: what was announced and not
acknowledged is the runner's to judge. Invariant: before a call begins, its announcement and every
acknowledgement before it have been sent, and an item is acknowledged only when its outputs are
durable; so whatever the user's code does to this process costs the announced call alone.

What ends the process without a word (SystemExit, os._exit, a signal) is meant to: a worker that
leaves in order says `left`.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from workers import entry, faults, lines
from workers.channel import Channel, end
from workers.footprint import footprint
from workers.jsonable import BadResult, json_of
from workers.outputs import OUT, Publisher

if TYPE_CHECKING:
    from collections.abc import Callable

    from workers.messages import Do

MEMORY_EVERY_S = 0.2
EXIT_UNREADY = 1


class Call(NamedTuple):
    """Items that the entry gets at once: one as it is, or some as a list."""

    numbers: tuple[int, ...]
    argument: Any
    is_batch: bool


class Worker:
    """Works on what arrives on a channel until it is told to leave, or cannot go on."""

    def __init__(self, channel: Channel, call: Callable[[Any], object], outputs: Publisher) -> None:
        self._channel = channel
        self._call = call
        self._outputs = outputs
        self._calls: deque[Call] = deque()
        self._finished = 0  # items
        self._memory_due_s = 0.0
        self._broken = False  # the process cannot go on

    def run(self) -> None:
        """Do all calls, and say `left`."""
        channel, report = self._channel, b""
        while not self._broken:
            channel.look()
            while channel.orders:
                self._calls.extend(_split(channel.orders.popleft()))
            if channel.leaving:
                break
            if self._calls:
                call = self._calls.popleft()
                channel.send(report + lines.encode_begin(call.numbers))
                report = self._perform(call)
            else:
                channel.send(report)  # nothing may come for a long time
                report = b""
                channel.wait()
        memory = lines.encode_memory(footprint(self._finished))
        channel.send(report + memory + lines.LEFT)

    def _perform(self, call: Call) -> bytes:
        """Call, publish, and return the lines that say what became of it."""
        outputs = self._outputs
        outputs.in_call = True
        begun_s = time.perf_counter()
        try:
            answer = self._call(call.argument)
            ended_s = time.perf_counter()
            outputs.in_call = False
            if self._channel.in_a_fork():
                os._exit(0)  # a fork made by the entry came back here as well; one answer is enough
            report = _acknowledged(call, answer, (ended_s - begun_s) * 1000)
            outputs.publish()
        except (SystemExit, KeyboardInterrupt):
            raise  # the end of the process
        except BaseException as error:  # noqa: BLE001 - all else is the answer
            return self._failed(call, error)
        self._finished += len(call.numbers)
        if ended_s >= self._memory_due_s:
            self._memory_due_s = ended_s + MEMORY_EVERY_S
            report += lines.encode_memory(footprint(self._finished))
        return report

    def _failed(self, call: Call, error: BaseException) -> bytes:
        self._outputs.in_call = False
        failure = faults.describe(error)
        if self._channel.in_a_fork():
            faults.log("in a fork that the entry made:", failure)
            os._exit(1)
        self._outputs.drop()
        self._broken = failure.fatal
        faults.log(f"failed: item {', '.join(map(str, call.numbers))}", failure)
        return lines.encode_failed(call.numbers, failure)


def _split(order: Do) -> list[Call]:
    """Return the calls that the items of an order make."""
    items, size = order.items, order.batch
    if size is None:
        return [Call((number,), item, is_batch=False) for number, item in items]
    return [
        Call(
            tuple([number for number, _ in items[first : first + size]]),
            [item for _, item in items[first : first + size]],
            is_batch=True,
        )
        for first in range(0, len(items), size)
    ]


def _acknowledged(call: Call, answer: object, ms: float) -> bytes:
    """Return the lines that acknowledge a call's items. Raises BadResult."""
    if not call.is_batch:
        return _done(call.numbers[0], ms, json_of(answer))
    if not isinstance(answer, (list, tuple)):
        raise BadResult(
            f"the entry gets a list of items (batch) and must return a list of as many results, "
            f"not a {type(answer).__qualname__}"
        )
    if len(answer) != len(call.numbers):
        raise BadResult(f"{len(answer)} results for a list of {len(call.numbers)} items")
    named = [json_of(result, f"result {index}") for index, result in enumerate(answer)]
    return b"".join([_done(call.numbers[index], ms, text) for index, text in enumerate(named)])


def _done(number: int, ms: float, text: bytes) -> bytes:
    try:
        return lines.encode_done(number, ms, text)
    except lines.LineTooLong as error:
        raise BadResult(
            f"the result is too long to be sent ({error}): write it to a file of "
            f"workers.outputs.output(name), and return the name"
        ) from None


def serve(channel: Channel) -> None:
    """Load what the runner names, say `ready`, and work. Ends the process when it cannot."""
    begun_s = time.perf_counter()
    setup = channel.setup()
    try:
        outputs = Publisher(Path(setup.out or OUT), setup.worker)
        call = entry.callable_of(setup.entry, setup.args)
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as error:  # noqa: BLE001 - all else is the answer
        unready(channel, error)
    if channel.in_a_fork():
        os._exit(0)
    channel.send(lines.encode_ready(time.perf_counter() - begun_s))
    Worker(channel, call, outputs).run()
    outputs.close()


def unready(channel: Channel, error: BaseException) -> NoReturn:
    """Say why there is nothing to call, and end."""
    failure = faults.describe(error)
    if failure.kind == "error" and isinstance(error, entry.CONFIG_ERRORS):
        failure = failure._replace(kind="bad_config")
    if not channel.in_a_fork():
        faults.log("cannot begin:", failure)
        channel.send(lines.encode_unready(failure))
    end(EXIT_UNREADY)


def prepare() -> None:
    """Make the log hold what was printed, and where it crashed, however the process ends."""
    faulthandler.enable(file=faults.STDERR_FD)
    with suppress(Exception):  # whoever forked us may have put anything in its place
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # the same


def main() -> NoReturn:
    """Be a batch worker until the runner says otherwise."""
    prepare()
    serve(Channel.from_environment())
    end(0)
