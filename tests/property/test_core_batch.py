"""The arithmetic of batch jobs, for any numbers: ranges, growth of memory, deadlines."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.batch.deadlines import Wait, first, of_worker
from supervisor.core.batch.growth import SUSTAINED, Growth
from supervisor.core.batch.ranges import Pending, together
from supervisor.core.batch.state import BatchState, Rules, Worker
from supervisor.core.cadence import LONGEST_S
from supervisor.core.deadlines import Timeouts

MIB = 1 << 20
numbers = st.sets(st.integers(1, 200))
seconds = st.floats(0.001, 1e6)
maybe_seconds = st.none() | seconds


@given(numbers)
def test_ranges_hold_exactly_the_numbers(some: set[int]) -> None:
    """Ascending, none twice, none missing, and no two that could be one."""
    ranges = together(some)
    assert [one for low, high in ranges for one in range(low, high + 1)] == sorted(some)
    assert all(high + 1 < low for (_, high), (low, _) in pairwise(ranges))


@given(numbers, st.lists(st.tuples(st.integers(0, 60), st.sets(st.integers(0, 59)))))
def test_what_is_taken_and_given_back_is_never_lost(
    some: set[int], turns: list[tuple[int, set[int]]]
) -> None:
    """Against a plain list: the same numbers in the same order, whatever is taken and returned."""
    pending, plain = Pending.of(together(some)), sorted(some)
    for count, chosen in turns:
        taken, pending = pending.take(count)
        assert list(taken) == plain[:count]
        back = [one for at, one in enumerate(taken) if at in chosen]
        pending, plain = pending.give_back(back), sorted(back) + plain[count:]
        assert (len(pending), bool(pending)) == (len(plain), bool(plain))
    assert list(pending.take(1000)[0]) == plain


def seen(figures: list[tuple[int, int]]) -> Growth:
    """What these figures, each after so many items, tell."""
    growth = Growth()
    for used, items in figures:
        growth = growth.seen(used, items)
    return growth


@given(
    start=st.integers(0, 100 * MIB),
    leak=st.integers(0, 50 * MIB),
    after=st.lists(st.integers(1, 20), min_size=SUSTAINED, max_size=30),
)
def test_a_steady_leak_is_measured_exactly(start: int, leak: int, after: list[int]) -> None:
    """However many items lie between two figures; and late by those last figures at most."""
    items = [1 + sum(after[:count]) for count in range(len(after) + 1)]
    growth = seen([(start + leak * count, count) for count in items])
    assert growth.per_item_bytes == leak
    assert growth.sustained_bytes == leak * (items[-SUSTAINED] - 1)


@given(
    st.lists(st.integers(0, 100), min_size=1, max_size=12),
    st.integers(0, 11),
    st.integers(1, 10**9),
)
def test_one_peak_is_no_leak(noise: list[int], at: int, peak: int) -> None:
    """A single figure, however large, changes nothing beyond the noise of the others."""
    figures = [(500 + used, count) for count, used in enumerate(noise, start=1)]
    if 0 < at < len(figures):
        figures[at] = (500 + peak, figures[at][1])
    assert seen(figures).sustained_bytes <= 100


def test_too_little_says_nothing() -> None:
    """No figure, one before the first item, the same one again: no growth, and no leak per item."""
    assert (Growth().sustained_bytes, Growth().per_item_bytes, Growth().items) == (0, None, 0)
    assert seen([(9, 0)]) == Growth()
    assert Growth().seen(None, 3) == Growth()
    again = seen([(9, 1), (20, 2), (20, 2), (20, 2), (20, 2)])
    assert (again.sustained_bytes, again.per_item_bytes, again.items) == (0, None, 2)


def test_what_an_allocator_keeps_counts_once() -> None:
    """Steps that stay are growth, not more with each item; memory that falls is none."""
    steps = seen([(10, 1), (10, 2), (30, 3), (30, 4), (30, 5), (30, 9)])
    assert (steps.sustained_bytes, steps.per_item_bytes) == (20, 20 / 3)
    assert seen([(30, 1), (20, 2), (20, 3), (20, 4)]).per_item_bytes == 0


workers = st.builds(
    Worker,
    serial=st.integers(1, 99),
    slot=st.just(0),
    started_at=seconds,
    ready=st.booleans(),
    chunk=st.sampled_from([(), (1,), (1, 2)]),
    dismissed=st.sampled_from(["", "it is old"]),
    ended_for=st.sampled_from(["", "it hung"]),
    silent_since=seconds,
    item_since=maybe_seconds,
    chunk_since=seconds,
)
timeouts = st.builds(
    Timeouts, startup_s=maybe_seconds, heartbeat_s=maybe_seconds, heartbeat_auto=st.booleans()
)
rules = st.builds(Rules, item_s=maybe_seconds, chunk_s=maybe_seconds)


@given(st.lists(workers, max_size=5), timeouts, rules)
def test_the_first_deadline_of_a_crew(crew: list[Worker], given_s: Timeouts, of: Rules) -> None:
    """It is the earliest of all, and each worker has those that fit what it is doing."""
    state = BatchState(of, 1, workers=tuple(crew))
    each = [due for one in crew if (due := of_worker(state, one, given_s)) is not None]
    assert first(state, given_s) == min(each, key=lambda due: due.at, default=None)
    for one in crew:
        due = of_worker(state, one, given_s)
        heartbeat_s = LONGEST_S if given_s.heartbeat_auto else given_s.heartbeat_s
        waits: dict[Wait, tuple[float | None, float | None]] = {}
        if one.ended_for:
            assert due is None
        elif not one.ready:
            waits = {Wait.STARTUP: (one.started_at, given_s.startup_s)}
        elif one.chunk or one.dismissed:
            waits = {Wait.HEARTBEAT: (one.silent_since, heartbeat_s)}
            waits[Wait.ITEM] = (one.item_since, of.item_s)
            if one.chunk:
                waits[Wait.CHUNK] = (one.chunk_since, of.chunk_s)
        armed = [a + b for a, b in waits.values() if a is not None and b is not None]
        assert (None if due is None else due.at) == min(armed, default=None)
        if due is not None:
            since, allowed_s = waits[due.wait]
            assert (due.timeout_s, due.serial) == (allowed_s, one.serial)
            assert since is not None
