"""Where streams get their events from: a job's log, its progress, the queue.

Owns when the shelf is asked: only while somebody listens, at most four times a second for one job
however many listen, and less often while nothing happens. Invariant: a client that goes on behind
the last id it saw misses nothing and sees nothing twice.
"""

import asyncio
import base64
import time
import zlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from supervisor.daemon.api.answers import encoded
from supervisor.daemon.api.facade import Facade
from supervisor.daemon.api.stream import Event, Source
from supervisor.daemon.contracts import Json, Peer

OFTEN_S = 0.25
SELDOM_S = 1.0
DIGITS = 15
SLOWER = 1.5
LOG_BYTES = 64 * 1024
_CONTINUES, _STARTS = 0x80, 0xC0  # of the bytes of a character in UTF-8
_LENGTHS = ((0xF0, 4), (0xE0, 3), (0xC0, 2))

Sleep = Callable[[float], Awaitable[None]]


class Recent:
    """Answers that are not older than OFTEN_S, shared by all who ask the same."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._asked: dict[tuple[object, ...], tuple[float, asyncio.Future[Json]]] = {}

    async def get(self, key: tuple[object, ...], ask: Callable[[], Awaitable[Json]]) -> Json:
        """The answer to what `key` stands for. An error is shared like an answer."""
        now_s = self._clock()
        self._asked = {
            one: known for one, known in self._asked.items() if now_s - known[0] < OFTEN_S
        }
        if key not in self._asked:
            asked = asyncio.ensure_future(ask())
            asked.add_done_callback(_looked_at)
            self._asked[key] = (now_s, asked)
        # One who leaves does not take the answer away from the others.
        return await asyncio.shield(self._asked[key][1])


def _looked_at(asked: asyncio.Future[Json]) -> None:
    """An error that all have left before it came is nobody's."""
    if not asked.cancelled():
        asked.exception()


@dataclass(slots=True)
class Pace:
    """How long to wait before the next look: longer and longer while nothing changes."""

    sleep: Sleep = asyncio.sleep
    wait_s: float = OFTEN_S

    def news(self) -> None:
        """Something happened: look often."""
        self.wait_s = OFTEN_S

    async def rest(self) -> None:
        """Wait."""
        await self.sleep(self.wait_s)
        self.wait_s = min(self.wait_s * SLOWER, SELDOM_S)


@dataclass(frozen=True, slots=True)
class Following:
    """Whose job is followed, for whom, and through what."""

    daemon: Facade
    recent: Recent
    peer: Peer
    job: str
    pace: Pace = field(default_factory=Pace)

    async def ask(self, question: str, **arguments: Json) -> Json:
        """Ask the shelf, unless the answer is fresh."""
        peer = self.peer
        key = (peer.uid, peer.admin, self.job, question, *arguments.items())
        return await self.recent.get(
            key, lambda: self.daemon.ask(peer, self.job, question, arguments)
        )

    async def now(self) -> Mapping[str, Json]:
        """Where the job is, as the queue knows."""
        return await self.daemon.wait(self.peer, self.job, 0)


@dataclass(slots=True)
class Place:
    """Where in a job's logs a reader is. `only`: of this attempt alone."""

    attempt: int | None = None
    offset: int = 0
    only: bool = False

    @classmethod
    def parse(cls, text: str) -> "Place | None":
        """From the id of an event, `3:1200`; None where it is none of ours."""
        attempt, colon, offset = text.partition(":")
        numbers = (attempt, offset)
        if not colon or not all(
            one.isascii() and one.isdigit() and len(one) <= DIGITS for one in numbers
        ):
            return None
        return cls(int(attempt), int(offset))


async def log_events(following: Following, place: Place) -> Source:
    """What attempts print, as it comes, until the job has ended.

    `attempt` begins one, `log` is a piece of it, `end` says where the job is.
    """
    announced: int | None = None
    quiet = False  # the attempt had ended and there was nothing more, at the last look
    while True:
        page = await _page(following, place)
        if page["attempt"] not in {None, announced}:
            announced = place.attempt = page["attempt"]
            yield Event("attempt", {"attempt": announced}, f"{announced}:{page['offset']}")
        event = _piece(page, place)
        if event is not None:
            following.pace.news()
            yield event
            if place.offset < page["size"]:
                continue
        # What was printed before the end was journaled is seen by a look after it.
        over = (page["ended"] and quiet) or announced is None
        quiet = page["ended"] and event is None
        if over and await _another(following, place):
            quiet = False
        elif over and ((now := await following.now())["ended"] or (quiet and place.only)):
            yield Event("end", dict(now))
            return
        await following.pace.rest()


async def _page(following: Following, place: Place) -> Mapping[str, Json]:
    page: Mapping[str, Json] = await following.ask(
        "log", attempt=place.attempt, offset=place.offset, limit=LOG_BYTES
    )
    return page


async def _another(following: Following, place: Place) -> bool:
    """Go on to the next attempt, if there is one."""
    if place.attempt is None or place.only:
        return False
    last = await following.ask("log", attempt=None, offset=0, limit=0)
    if last["attempt"] is None or last["attempt"] <= place.attempt:
        return False
    place.attempt += 1
    place.offset = 0
    following.pace.news()
    return True


def _piece(page: Mapping[str, Json], place: Place) -> Event | None:
    """The event of what is new; the place moves behind it.

    `text` is for reading; where it is not all of it, because the bytes are no UTF-8, they come as
    `data` too. A character of which only the beginning is written is left for later.
    """
    data = base64.b64decode(page["data"])
    whole = len(data) if page["ended"] else whole_characters(data)
    if not whole:
        return None
    data = data[:whole]
    place.offset = page["offset"] + whole
    told = {"attempt": place.attempt, "offset": page["offset"], "next": place.offset}
    try:
        told["text"] = data.decode()
    except UnicodeDecodeError:
        told |= {"text": data.decode(errors="replace"), "data": base64.b64encode(data).decode()}
    return Event("log", told, f"{place.attempt}:{place.offset}")


def whole_characters(data: bytes) -> int:
    """How many bytes there are before a character that is cut off at the end."""
    for back in range(1, min(4, len(data) + 1)):
        byte = data[-back]
        if byte >= _STARTS:
            needs = next(length for first, length in _LENGTHS if byte >= first)
            return len(data) - back if needs > back else len(data)
        if byte < _CONTINUES:
            break
    return len(data)


async def progress_events(following: Following, seen: str | None) -> Source:
    """How far a job is, whenever that changes, until it has ended. `seen`: the last id."""
    while True:
        over = await following.now()
        told = await following.ask("progress")
        document = {"id": over["id"]} | dict(told.get(over["id"]) or {"state": over["state"]})
        id_ = f"{zlib.crc32(encoded(document)):08x}"
        if id_ != seen:
            seen = id_
            following.pace.news()
            yield Event("progress", document, id_)
        if over["ended"]:
            yield Event("end", dict(over))
            return
        await following.pace.rest()


async def queue_events(daemon: Facade, peer: Peer, after: int | None) -> Source:
    """What happens in the queue."""
    happenings = daemon.subscribe(peer, after)
    try:
        async for one in happenings:
            yield Event("happening", one, str(one["seq"]))
    finally:
        close = getattr(happenings, "aclose", None)
        if close is not None:
            await close()
