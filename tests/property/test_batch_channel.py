"""The batch channel, whatever crosses it and wherever the stream is cut."""

import json
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers import lines, messages
from workers.protocol import FAILURE_KINDS, canonical

NUMBERS = st.integers(1, 10**12)
WORDS = st.text(max_size=30)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
BATCHES = st.none() | st.integers(1, 64)
FAILURES = st.builds(
    messages.Failure, st.sampled_from(FAILURE_KINDS), WORDS, WORDS, WORDS, st.booleans()
)
MILLISECONDS = st.integers(0, 10**9).map(lambda count: count / 1000)
RESULTS = JSON.map(lambda value: json.dumps(value).encode("ascii"))
BYTE_COUNTS = st.integers(0, 2**45)
GROUPS = st.lists(NUMBERS, min_size=1, max_size=4).map(tuple)

REPORTS: dict[type, tuple[st.SearchStrategy[Any], Callable[[Any], bytes]]] = {
    messages.Ready: (
        st.builds(messages.Ready, MILLISECONDS),
        lambda ready: lines.encode_ready(ready.setup_s),
    ),
    messages.Unready: (
        st.builds(messages.Unready, FAILURES),
        lambda unready: lines.encode_unready(unready.failure),
    ),
    messages.Begun: (
        st.builds(messages.Begun, GROUPS),
        lambda begun: lines.encode_begin(begun.numbers),
    ),
    messages.Done: (
        st.builds(messages.Done, NUMBERS, MILLISECONDS, RESULTS),
        lambda done: lines.encode_done(*done),
    ),
    messages.Failed: (
        st.builds(messages.Failed, GROUPS, FAILURES),
        lambda failed: lines.encode_failed(*failed),
    ),
    messages.Memory: (
        st.builds(
            messages.Memory,
            BYTE_COUNTS,
            st.none() | BYTE_COUNTS,
            st.none() | BYTE_COUNTS,
            BYTE_COUNTS,
        ),
        lines.encode_memory,
    ),
    messages.Left: (st.just(messages.Left()), lambda _: lines.LEFT),
}
SAID = st.lists(st.one_of([strategy for strategy, _ in REPORTS.values()]), max_size=20)


def stream_of(said: Iterable[Any]) -> bytes:
    """Return what a worker sends to say all this."""
    return b"".join(REPORTS[type(message)][1](message) for message in said)


def fed(stream: bytes, cuts: Iterable[int], limit_bytes: int = 1 << 24) -> list[bytes]:
    """Return the lines of a stream that arrives in pieces, cut at these places."""
    reader = lines.Lines(limit_bytes)
    ends = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    return [line for left, right in pairwise(ends) for line in reader.feed(stream[left:right])]


@given(SAID, st.lists(st.integers(0), max_size=20))
def test_every_cut_of_the_stream_gives_the_same_messages(said: list[Any], cuts: list[int]) -> None:
    """What a worker says arrives unchanged and in order, however the kernel cuts it."""
    heard = [lines.parse_report(line) for line in fed(stream_of(said), cuts)]
    assert heard == said
    assert [type(message) for message in heard] == [type(message) for message in said]


@given(
    st.builds(
        messages.Setup,
        WORDS,
        st.dictionaries(WORDS, JSON, max_size=3),
        st.none() | WORDS,
        BATCHES,
        st.integers(0, 10**6),
    )
)
def test_a_setup_arrives_as_it_was_sent(setup: messages.Setup) -> None:
    """Entry, arguments of any JSON, folder, batch and serial cross unchanged."""
    (line,) = fed(lines.encode_setup(setup), [])
    assert lines.parse_order(line) == setup


@given(st.lists(st.tuples(NUMBERS, JSON), max_size=8), BATCHES)
def test_items_arrive_as_they_were_sent(items: list[tuple[int, Any]], batch: int | None) -> None:
    """Items of any JSON are sent by their canonical texts, in their order."""
    texts = [(number, canonical(item)) for number, item in items]
    (line,) = fed(lines.encode_do(texts, batch), [])
    order = lines.parse_order(line)
    assert isinstance(order, messages.Do)
    assert order.batch == batch
    assert [(number, canonical(item)) for number, item in order.items] == texts


@given(st.sampled_from([*lines._REPORTS, *lines._ORDERS, b"", b"DONE"]), st.binary(max_size=200))
def test_bytes_that_nobody_sends_are_refused_in_words(word: bytes, body: bytes) -> None:
    """Behind any word any bytes are a message or ProtocolBroken, and never another error."""
    for parse in (lines.parse_report, lines.parse_order):
        words = "?"
        try:
            parse(word + b" " + body)
        except lines.ProtocolBroken as error:
            words = str(error)
        assert words


@given(st.lists(st.binary(max_size=12).filter(lambda line: b"\n" not in line), max_size=8))
def test_a_line_beyond_the_limit_is_refused_wherever_it_is_cut(content: list[bytes]) -> None:
    """Lines of up to the limit pass, and one more byte does not, in one piece or byte by byte."""
    stream = b"".join(line + b"\n" for line in content)
    for size in (1, 2, 8):
        reader = lines.Lines(8)
        heard: list[bytes] = []
        broken = False
        for first in range(0, len(stream), size):
            try:
                heard += reader.feed(stream[first : first + size])
            except lines.ProtocolBroken:
                broken = True
                break
        long = [index for index, line in enumerate(content) if len(line) > 8]
        assert broken == bool(long)
        assert heard == content[: long[0] if long else None]


@given(JSON)
def test_one_value_has_one_canonical_text(value: Any) -> None:
    """The text is ASCII, holds no newline, reads back, and does not depend on the order of keys."""
    text = canonical(value)
    assert text.isascii()
    assert "\n" not in text
    assert json.loads(text) == value
    assert canonical(_backwards(value)) == text


def _backwards(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _backwards(value[key]) for key in reversed(value)}
    return [_backwards(one) for one in value] if isinstance(value, list) else value


def test_what_is_no_json_has_no_canonical_text() -> None:
    """NaN is refused, where Python would write a word that no other reader knows."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical(float("nan"))
