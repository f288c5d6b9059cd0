"""What no plan ever does, whatever waits and runs."""

from collections.abc import Iterable
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.core.causes import State
from supervisor.queue.model import Entry, Needs, Phase, Wish
from supervisor.queue.plan import PATIENCE_S, Capacity, Plan, Situation, order, plan
from tests.unit.queue_entries import NOW_S, Cards, entry

CPUS, MEMORY, GPUS = 8, 10, 4
FOLDERS = ("/a", "/b", "/c")
GROUPS = (None, "g", "h")
FINAL = (State.SUCCEEDED, State.FAILED, State.CANCELLED, State.HOLDING)

needs = st.builds(
    Needs,
    gpus=st.integers(0, GPUS + 1),
    cpus=st.integers(1, CPUS + 1),
    memory_bytes=st.none() | st.integers(0, MEMORY + 1),
)
ages = st.integers(-100, int(3 * PATIENCE_S))


@st.composite
def situations(draw: st.DrawFn, *, free: bool = False) -> Situation:
    """A host, what runs on it within its capacity, and what waits; `free`: nothing but needs."""
    jobs = draw(st.lists(st.tuples(needs, ages, st.integers(-2, 2)), max_size=14))
    entries = []
    for seq, (wanted, age, priority) in enumerate(jobs, start=1):
        more = {} if free else draw(ties(len(jobs)))
        queued_s = NOW_S - age
        entries.append(entry(seq, wanted, queued_s=queued_s, priority=priority, **more))
    running, waiting = [], []
    for one in entries:
        fits = within([*running, one]) and one.wish is Wish.RUN and not clashing([*running, one])
        if fits and draw(st.booleans()):
            running.append(replace(one, phase=Phase.STARTED))
        else:
            waiting.append(one)
    ended = {f"old-{number}": draw(st.sampled_from(FINAL)) for number in range(3)}
    held = (
        frozenset() if free else frozenset(draw(st.sets(st.sampled_from([(1000, "g"), (7, "h")]))))
    )
    order_ = draw(st.permutations(waiting))
    return Situation(order_, running, ended, held, Capacity(CPUS, MEMORY), NOW_S)


@st.composite
def ties(draw: st.DrawFn, count: int) -> dict[str, object]:
    """What else keeps a job back."""
    others = [f"job-{seq}" for seq in range(1, count + 1)] + ["old-0", "old-1", "old-2", "unknown"]
    return {
        "after": tuple(draw(st.lists(st.sampled_from(others), max_size=2))),
        "group": draw(st.sampled_from(GROUPS)),
        "uid": draw(st.sampled_from([7, 1000])),
        "claims": tuple(draw(st.sets(st.sampled_from(FOLDERS), max_size=2))),
        "wish": draw(st.sampled_from([Wish.RUN] * 5 + [Wish.CANCEL])),
    }


def within(entries: Iterable[Entry], gpus: int = GPUS) -> bool:
    """Whether these can all run at once."""
    all_needs = [one.needs for one in entries]
    return (
        sum(one.cpus for one in all_needs) <= CPUS
        and sum(one.memory_bytes or 0 for one in all_needs) <= MEMORY
        and sum(one.gpus for one in all_needs) <= gpus
    )


def folders_of(one: Entry) -> set[tuple[int, str]]:
    """The folders that a job writes to, as its user's: nobody keeps another from theirs."""
    return {(one.uid, folder) for folder in one.claims}


def clashing(entries: Iterable[Entry]) -> bool:
    """Whether two jobs of one user write to one folder."""
    claims = [folder for one in entries for folder in folders_of(one)]
    return len(claims) != len(set(claims))


def cards_of(now: Situation, extra: int = 0) -> Cards:
    """The GPUs that the running jobs leave."""
    return Cards(GPUS + extra).holding(sum(one.needs.gpus for one in now.started))


def chosen(now: Situation, found: Plan) -> list[Entry]:
    """The entries that start, in that order."""
    by_id = {one.id: one for one in now.waiting}
    return [by_id[one.id] for one in found.starts]


def is_ready(one: Entry, now: Situation, held_folders: set[tuple[int, str]]) -> bool:
    """Whether it would start on an empty host."""
    return (
        one.wish is Wish.RUN
        and (one.uid, one.group) not in now.held_groups
        and all(now.states.get(other) is State.SUCCEEDED for other in one.after)
        and held_folders.isdisjoint(folders_of(one))
    )


@given(situations())
@settings(max_examples=120, deadline=None)
def test_it_never_gives_what_is_not_there(now: Situation) -> None:
    """All that runs and starts fits the host, and no GPU is given twice."""
    found = plan(now, cards_of(now))
    assert within([*now.started, *chosen(now, found)])
    given_ = [uuid for one in found.starts for uuid in one.gpus]
    assert len(given_) == len(set(given_))
    for start, one in zip(found.starts, chosen(now, found), strict=True):
        assert len(start.gpus) == one.needs.gpus


@given(situations())
@settings(max_examples=120, deadline=None)
def test_nobody_starts_who_may_not(now: Situation) -> None:
    """Not before what it waits for, not out of a held group, not into a folder that is in use."""
    found = plan(now, cards_of(now))
    starts = chosen(now, found)
    assert not clashing([*now.started, *starts])
    for one in starts:
        assert is_ready(one, now, set())


@given(situations(), st.randoms())
@settings(max_examples=80, deadline=None)
def test_it_depends_on_nothing_else(now: Situation, random: object) -> None:
    """The same entries in any order give the same plan, and each job is in it once."""
    found = plan(now, cards_of(now))
    shuffled = list(now.waiting)
    random.shuffle(shuffled)  # type: ignore[attr-defined] - a random.Random
    again = plan(replace(now, waiting=shuffled), cards_of(now))
    assert (found.starts, list(found.waits.items())) == (again.starts, list(again.waits.items()))
    ids = [one.id for one in found.starts] + list(found.waits)
    assert sorted(ids) == sorted(one.id for one in now.waiting)
    assert all(found.waits.values())


@given(situations())
@settings(max_examples=120, deadline=None)
def test_nobody_waits_without_need(now: Situation) -> None:
    """While nobody has lost patience, a ready job that waits does not fit beside all that runs."""
    now = replace(now, now_s=NOW_S - 3 * PATIENCE_S)
    found = plan(now, cards_of(now))
    running = [*now.started, *chosen(now, found)]
    folders = {folder for one in running for folder in folders_of(one)}
    for one in now.waiting:
        if one.id in found.waits and is_ready(one, now, folders):
            assert not within([*running, one])


@given(situations())
@settings(max_examples=200, deadline=None)
def test_the_first_is_not_passed_once_it_has_waited(now: Situation) -> None:
    """Nobody behind it takes of what the first ready job lacks, and it is not left with less."""
    found = plan(now, cards_of(now))
    turn = sorted(now.waiting, key=lambda one: order(one, now.now_s))
    starts = {one.id for one in found.starts}
    before: list[Entry] = list(now.started)
    for place, one in enumerate(turn):
        if one.id in starts:
            before.append(one)
            continue
        folders = {folder for other in before for folder in folders_of(other)}
        possible = within([one])
        if not (is_ready(one, now, folders) and possible):
            continue
        if one.queued_s > NOW_S - PATIENCE_S:
            continue
        behind = [other for other in turn[place + 1 :] if other.id in starts]
        assert_keeps(one, before, behind)
        return


def assert_keeps(one: Entry, before: list[Entry], behind: list[Entry]) -> None:
    """What it lacks beside those before it nobody behind takes; the rest is kept for it."""

    def taken(entries: list[Entry]) -> tuple[int, int, int]:
        every = [other.needs for other in entries]
        return (
            sum(other.cpus for other in every),
            sum(other.memory_bytes or 0 for other in every),
            sum(other.gpus for other in every),
        )

    wanted = (one.needs.cpus, one.needs.memory_bytes or 0, one.needs.gpus)
    have = (CPUS, MEMORY, GPUS)
    for want, all_, used, later in zip(wanted, have, taken(before), taken(behind), strict=True):
        if used + want > all_:
            assert later == 0
        else:
            assert used + want + later <= all_


@given(situations(free=True), st.integers(0, 8), st.integers(0, 8), st.integers(0, 4))
@settings(max_examples=120, deadline=None)
def test_more_room_never_makes_the_first_ones_wait(
    now: Situation, cpus: int, memory: int, gpus: int
) -> None:
    """Those who start with nobody passed start on a larger host too.

    Behind a job that is passed this is not so: with more room it starts itself, and takes theirs.
    """
    found = plan(now, cards_of(now))
    larger = replace(now, capacity=Capacity(CPUS + cpus, MEMORY + memory))
    wider = {one.id for one in plan(larger, cards_of(now, gpus)).starts}
    starts = {one.id for one in found.starts}
    for one in sorted(now.waiting, key=lambda one: order(one, now.now_s)):
        if one.id not in starts:
            return
        assert one.id in wider


@given(situations(free=True), needs, st.integers(0, 8))
@settings(max_examples=100, deadline=None)
def test_equal_jobs_start_in_order_and_more_with_more_room(
    now: Situation, wanted: Needs, cpus: int
) -> None:
    """Where all want the same the first ones start, and never fewer of them on a larger host."""
    alike = replace(now, waiting=[replace(one, needs=wanted) for one in now.waiting])
    found = plan(alike, cards_of(now))
    turn = [one.id for one in sorted(alike.waiting, key=lambda one: order(one, now.now_s))]
    assert [one.id for one in found.starts] == turn[: len(found.starts)]
    larger = replace(alike, capacity=Capacity(CPUS + cpus, MEMORY))
    assert len(plan(larger, cards_of(now)).starts) >= len(found.starts)


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_a_big_job_starts_within_a_bound(data: st.DataObject) -> None:
    """Small jobs that never stop coming keep it for PATIENCE_S and as long as one of them runs."""
    big_needs = data.draw(
        st.builds(
            Needs,
            gpus=st.integers(0, GPUS),
            cpus=st.integers(1, CPUS),
            memory_bytes=st.none() | st.integers(0, MEMORY),
        )
    )
    small = st.builds(
        Needs,
        gpus=st.integers(0, 1),
        cpus=st.integers(1, 2),
        memory_bytes=st.none() | st.integers(0, 3),
    )
    longest_s, now_s, seq = 600, NOW_S, 1
    big = entry(0, big_needs, queued_s=NOW_S, submitted_s=NOW_S)
    waiting, running = [big], dict[str, tuple[Entry, float]]()
    while big in waiting:
        assert now_s - NOW_S <= PATIENCE_S + longest_s + 60
        for _ in range(4):
            waiting.append(entry(seq, data.draw(small), queued_s=now_s))
            seq += 1
        running = {id_: one for id_, one in running.items() if one[1] > now_s}
        started = [one for one, _ in running.values()]
        now = Situation(waiting, started, {}, frozenset(), Capacity(CPUS, MEMORY), now_s)
        for one in chosen(now, plan(now, cards_of(now))):
            waiting.remove(one)
            running[one.id] = one, now_s + data.draw(st.integers(1, longest_s))
        now_s += 300
