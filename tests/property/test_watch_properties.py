import math
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from supervisor.watch.follow import LogFollower, tail
from supervisor.watch.progress import STEP_LIMIT, latest, parser_for
from supervisor.watch.rate import Pace

AUTO = parser_for("auto")

words = st.sampled_from(
    [*"[]/|:=<,.-'k07 İ\u0661\x1b", "step", "epoch", "loss", "nan", "it/s", "s/it", "1e5"]
)
lines = st.lists(words | st.just("[00:10<01:13, "), max_size=30).map("".join) | st.text(
    max_size=200
)


@given(lines)
def test_any_line_gives_sane_progress_or_none(line: str) -> None:
    """Whatever a worker prints, the parser neither raises nor reports the impossible."""
    said = AUTO(line)
    if said is None:
        return
    assert said.step is None or 0 <= said.step <= STEP_LIMIT
    assert said.total is None or said.step is not None
    assert said.epoch is None or said.epoch >= 0
    assert said.rate is None or (said.rate > 0 and math.isfinite(said.rate))
    assert said.fraction is None or 0 <= said.fraction <= 1


@given(st.integers(0, STEP_LIMIT - 1), st.integers(1, STEP_LIMIT - 1), st.floats(0, 1e6))
def test_what_is_printed_is_read(step: int, more: int, loss: float) -> None:
    """Any step, total and loss printed in the plainest form come back."""
    total = min(step + more, STEP_LIMIT - 1)
    said = AUTO(f"step {step}/{total} loss {loss!r}")
    assert said is not None
    assert said.step == step
    assert said.total == (total or None)
    assert said.loss == loss


@given(st.lists(lines, max_size=20), lines)
def test_latest_agrees_with_the_last_line_that_names_a_step(
    all_lines: list[str], partial: str
) -> None:
    """Reading backwards finds the step that reading forwards ends with."""
    steps = [said.step for line in all_lines if (said := AUTO(line)) and said.step is not None]
    found = latest(AUTO, all_lines, partial="" if partial.rstrip().endswith("]") else "step 3")
    assert (found.step if found else None) == (steps[-1] if steps else None)


@given(st.lists(st.binary(max_size=40) | st.sampled_from([b"\n", b"\r", b"ab\r\n", b"\xc3"])))
def test_how_writes_are_cut_does_not_matter(writes: list[bytes]) -> None:
    """Lines are the same whether a log comes byte by byte or at once; tail shows the last."""
    data = b"".join(writes)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "log")
        follower, seen, grown = LogFollower(path), [], 0
        with path.open("ab", buffering=0) as log:
            for part in writes:
                log.write(part)
                chunk = follower.read_new()
                seen += chunk.lines
                grown += chunk.new_bytes
        follower.close()
        *whole, held = data.replace(b"\r", b"\n").split(b"\n")
        assert seen == [line.decode(errors="replace") for line in whole if line]
        assert (follower.partial, grown) == (held.decode(errors="replace"), len(data))
        assert set(tail(path)) <= {*seen, follower.partial}


@given(st.lists(st.binary(max_size=60)), st.integers(1, 50))
def test_a_skip_never_invents_a_line(writes: list[bytes], limit_bytes: int) -> None:
    """With any limit, each line shown is one that was printed, and every byte is counted."""
    data = b"".join(writes)
    printed = {line.decode(errors="replace") for line in data.replace(b"\r", b"\n").split(b"\n")}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "log")
        follower = LogFollower(path)
        grown = 0
        with path.open("ab", buffering=0) as log:
            for part in writes:
                log.write(part)
                chunk = follower.read_new(limit_bytes)
                grown += chunk.new_bytes
                assert set(chunk.lines) <= printed
        follower.close()
        assert grown == len(data)


observations = st.lists(st.tuples(st.integers(0, 10**12), st.floats(0, 1e9)), max_size=50)


@given(observations, st.floats(0, 1e9), st.integers(0, 10**12))
def test_pace_is_never_negative(seen: list[tuple[int, float]], now: float, total: int) -> None:
    """Any order of steps and times gives a finite rate and a time left that is not negative."""
    pace = Pace(window_s=60.0)
    for step, at in seen:
        pace.observe(step, at)
    rate, left = pace.steps_per_s(now), pace.eta_s(total, now)
    assert rate is None or rate >= 0
    assert left is None or left >= 0
