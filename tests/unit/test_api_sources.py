"""Where streams get their events: nothing is missed, nothing comes twice, and shelves have rest."""

import asyncio
import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.daemon.api.sources import (
    OFTEN_S,
    SELDOM_S,
    Following,
    Pace,
    Place,
    Recent,
    log_events,
    progress_events,
    queue_events,
    whole_characters,
)
from supervisor.daemon.api.stream import Event
from supervisor.daemon.contracts import NoSuchJob, Peer
from tests.api_daemon import FakeDaemon, FakeJob

ADA = Peer(4001, 4001, "ada")


class World:
    """A daemon, a clock, and what happens while a stream sleeps."""

    def __init__(self, *steps) -> None:
        self.daemon = FakeDaemon()
        self.job = self.daemon.add(FakeJob("net", ADA.uid))
        self.now_s = 0.0
        self.steps = list(steps)
        self.slept = []

    def following(self) -> Following:
        """Give what a stream follows by."""
        recent = Recent(clock=lambda: self.now_s)
        return Following(self.daemon, recent, ADA, "net", Pace(self._sleep))

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds
        if self.steps:
            self.steps.pop(0)(self.job)
        elif len(self.slept) > 500:
            raise TimeoutError("the stream does not end")

    def log(self, place: Place | None = None) -> list[Event]:
        """All events of the log."""
        return asyncio.run(_all(log_events(self.following(), place or Place())))

    def progress(self, seen: str | None = None) -> list[Event]:
        """All events of the progress."""
        return asyncio.run(_all(progress_events(self.following(), seen)))


async def _all(source) -> list[Event]:
    return [one async for one in source]


def _bytes(events: list[Event]) -> dict[int, bytes]:
    """What the events of a log say that each attempt printed."""
    found: dict[int, bytes] = {}
    for one in events:
        if one.name == "log":
            text, data = one.data["text"].encode(), one.data.get("data")
            whole = text if data is None else base64.b64decode(data)
            assert one.data["offset"] == len(found.get(one.data["attempt"], b""))
            found[one.data["attempt"]] = found.get(one.data["attempt"], b"") + whole
            assert one.data["next"] == len(found[one.data["attempt"]])
    return found


def _begins(job):
    job.logs.append(b"")


def _prints(content):
    def step(job):
        job.logs[-1] += content

    return step


def _attempt_ends(job):
    job.over = len(job.logs)


def _prints_a_last_word_and_ends(job):
    job.logs[-1] += b"last word\n"
    job.over = len(job.logs)
    job.state = "failed"


def _nothing(_job):
    """Let time pass."""


def test_a_log_is_followed_across_attempts_to_the_end():
    """From before the first attempt, over a restart with an attempt that printed nothing."""
    world = World(
        _nothing,
        _begins,
        _prints(b"one\n"),
        _prints(b"two\n"),
        _attempt_ends,
        _begins,
        _attempt_ends,
        _nothing,
        _begins,
        _nothing,
        _prints_a_last_word_and_ends,
    )
    events = world.log()
    assert _bytes(events) == {1: b"one\ntwo\n", 3: b"last word\n"}
    assert [one.data["attempt"] for one in events if one.name == "attempt"] == [1, 2, 3]
    assert (events[-1].name, events[-1].data["state"]) == ("end", "failed")


@pytest.mark.parametrize("place", [Place(1, 0), Place(2, 3), Place(2, 6), Place(3, 0)])
def test_a_log_is_gone_on_with_anywhere(place):
    """What was seen before does not come again, and the rest comes whole."""
    world = World()
    world.job.logs, world.job.over, world.job.state = [b"first\n", b"second", b"third"], 3, "failed"
    whole = {1: b"first\n", 2: b"second", 3: b"third"}
    expected = {
        number: content[place.offset :] if number == place.attempt else content
        for number, content in whole.items()
        if number >= place.attempt
    }
    found: dict[int, bytes] = {}
    for one in world.log(place):
        if one.name == "log":
            found[one.data["attempt"]] = one.data["text"].encode()
    assert found == {number: content for number, content in expected.items() if content}


def test_every_event_can_be_gone_on_from():
    """Cut at any event, a second stream from its id brings exactly what is left."""
    world = World()
    world.job.logs, world.job.over, world.job.state = [b"a" * 150_000, b"b" * 70_000], 2, "stopped"
    events = world.log(Place(1))
    for cut, last in enumerate(events[:-1], start=1):
        place = Place.parse(last.id)
        rest = [one for one in world.log(place) if one.name == "log"]
        assert rest == [one for one in events[cut:] if one.name == "log"]


def test_one_attempt_alone():
    """It ends with the attempt, although the job goes on."""
    world = World(_attempt_ends, _begins)
    world.job.logs = [b"first\n"]
    events = world.log(Place(1, 0, only=True))
    assert _bytes(events) == {1: b"first\n"}
    assert (events[-1].name, events[-1].data["ended"]) == ("end", False)


def test_a_job_that_ends_before_it_began():
    """No attempt, no log, but an end."""
    world = World(_nothing, lambda job: setattr(job, "state", "cancelled"))
    assert [one.name for one in world.log()] == ["end"]


def test_what_is_no_text_arrives_as_bytes():
    """Bytes that are no UTF-8 come as they are, beside what can be read of them."""
    world = World(_attempt_ends, lambda job: setattr(job, "state", "failed"))
    world.job.logs = [b"\xff\xfe\x00caf\xc3"]
    events = world.log()
    assert _bytes(events) == {1: b"\xff\xfe\x00caf\xc3"}
    assert events[1].data["text"] == "\ufffd\ufffd\x00caf"


def test_a_character_is_not_torn():
    """The half that is written already waits for the other half."""
    world = World(
        _prints("é".encode()[1:]), _attempt_ends, lambda job: setattr(job, "state", "failed")
    )
    world.job.logs = [b"caf" + "é".encode()[:1]]
    assert [one.data["text"] for one in world.log() if one.name == "log"] == ["caf", "é"]


@given(st.text(), st.integers(0, 12))
def test_whole_characters_are_whole(text, cut):
    """What is cut off is never more than a part of one character."""
    data = text.encode()[: cut or None]
    whole = whole_characters(data)
    data[:whole].decode()
    assert len(data) - whole < 4
    assert data[whole:].decode(errors="ignore") == ""


@given(st.binary(max_size=12))
def test_whole_characters_of_anything(data):
    """Whatever the bytes are, at most three are held back."""
    assert 0 <= len(data) - whole_characters(data) <= 3


def test_a_quiet_log_is_looked_at_less_often():
    """Down to once a second; news brings the full rate back."""
    world = World(*[_nothing] * 8, _prints(b"x"), _nothing, _prints_a_last_word_and_ends)
    world.job.logs = [b""]
    world.log()
    assert world.slept[:4] == [OFTEN_S, OFTEN_S * 1.5, OFTEN_S * 1.5**2, OFTEN_S * 1.5**3]
    assert world.slept[8] == SELDOM_S
    assert world.slept[9] == OFTEN_S


def _steps(*numbers):
    def at(number):
        return lambda job: setattr(job, "step", number)

    return [at(number) for number in numbers]


def test_progress_is_told_when_it_changes():
    """At once, then on change alone, then the end."""
    world = World(*_steps(1, 1, 1, 2), lambda job: setattr(job, "state", "succeeded"))
    events = world.progress()
    assert [one.data.get("step") for one in events] == [0, 1, 2, 2, None]
    assert [one.name for one in events] == [*["progress"] * 4, "end"]
    assert min(world.slept) >= OFTEN_S


def test_progress_that_was_seen_is_not_told_again():
    """A client that comes back with the last id hears of changes alone."""
    world = World(*_steps(5), lambda job: setattr(job, "state", "succeeded"))
    seen = world.progress()[0].id
    world.job.step, world.job.state = 0, "running"
    world.steps = [*_steps(5), lambda job: setattr(job, "state", "failed")]
    assert [one.data.get("step") for one in world.progress(seen)] == [5, 5, None]


def test_many_listeners_ask_a_shelf_once():
    """A hundred who follow the same job cost what one does."""
    world = World()

    async def together():
        recent = Recent(clock=lambda: world.now_s)
        follow = [Following(world.daemon, recent, ADA, "net") for _ in range(100)]
        for _ in range(3):
            await asyncio.gather(*(one.ask("progress") for one in follow))
            world.now_s += OFTEN_S

    asyncio.run(together())
    assert len(world.daemon.asked) == 3


def test_what_one_may_see_is_not_shared_with_another():
    """Answers are shared between those who ask as the same user."""
    world = World()
    world.job.logs = [b"secret"]

    async def both():
        recent = Recent(clock=lambda: 0.0)
        grace = Peer(4002, 4002, "grace")
        given = {"attempt": None, "offset": 0, "limit": 10}
        await Following(world.daemon, recent, ADA, "net").ask("log", **given)
        await Following(world.daemon, recent, grace, "net").ask("log", **given)

    with pytest.raises(Exception, match="belongs to user 4001"):
        asyncio.run(both())


def test_one_who_leaves_does_not_take_the_answer_away():
    """The question goes on for those who still wait."""

    async def two():
        recent, release = Recent(clock=lambda: 0.0), asyncio.Event()

        async def ask():
            await release.wait()
            return 42

        leaver = asyncio.ensure_future(recent.get(("x",), ask))
        stayer = asyncio.ensure_future(recent.get(("x",), ask))
        await asyncio.sleep(0)
        leaver.cancel()
        await asyncio.sleep(0)
        release.set()
        return await stayer

    assert asyncio.run(two()) == 42


def test_a_job_that_vanishes_ends_the_stream():
    """The refusal reaches whoever relays it."""
    world = World(lambda _job: world.daemon.kept.clear())
    world.job.logs = [b"x"]
    with pytest.raises(NoSuchJob):
        world.log()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3:1200", (3, 1200)),
        ("3", None),
        ("3:", None),
        (":5", None),
        ("-3:5", None),
        ("3:5:6", None),
        ("³:5", None),
        ("9" * 16 + ":0", None),
    ],
)
def test_the_id_of_an_event(text, expected):
    """What is none of ours is no place."""
    place = Place.parse(text)
    assert (place and (place.attempt, place.offset)) == expected


def test_happenings_go_on_behind_a_number():
    """All that came after it, in order; leaving ends the subscription."""
    daemon = FakeDaemon()
    for kind in ("Submitted", "Placed", "Ended"):
        daemon.happen("net", kind)

    async def two():
        source = queue_events(daemon, ADA, 1)
        found = [await anext(source), await anext(source)]
        await source.aclose()
        return found

    assert [(one.id, one.data["kind"]) for one in asyncio.run(two())] == [
        ("2", "Placed"),
        ("3", "Ended"),
    ]
    assert daemon.listeners == 0


def test_an_event_as_bytes():
    """One line of data, whatever is in it."""
    event = Event("log", {"text": "a\nb\r\n\u2028"}, "1:2")
    expected = b'id: 1:2\nevent: log\ndata: {"text":"a\\nb\\r\\n\\u2028"}\n\n'
    assert event.encoded() == expected
