"""Lines of the batch channel that are refused, and what is said of them."""

import pytest

from workers import lines, messages
from workers.listing import line_of, listing
from workers.protocol import LINE_LIMIT_BYTES

FAILURE = b'{"kind":"error","type":"E","message":"","traceback":"","fatal":false}'


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"", "no such message: ''"),
        (b"hello there", "no such message: 'hello there'"),
        (b"x" * 100, "no such message: '" + "x" * 80 + "'…"),
        (b"ready", "Expecting value"),
        (b"ready []", "not a JSON object"),
        (b"ready {}", "'setup_s' is missing or of another type"),
        (b'ready {"setup_s":"1"}', "'setup_s' is missing or of another type"),
        (b"ready " + b"[" * 100_000, "recursion"),
        (b"begin", "not the number of an item: 'begin'"),
        (b"begin 1  2", "not the number of an item"),
        (b"begin -1", "not the number of an item"),
        (b"begin 1_0", "not the number of an item"),
        (b"begin " + b"9" * 5000, "Exceeds the limit"),
        (b"done 1", "could not convert string to float"),
        (b"done 1 2", "not a number, milliseconds and a result"),
        (b"done 1 nan {}", "not a number, milliseconds and a result"),
        (b"done 1 inf {}", "not a number, milliseconds and a result"),
        (b"done 1 -1 {}", "not a number, milliseconds and a result"),
        (b"done a 1 {}", "not a number, milliseconds and a result"),
        (b"failed 1,b " + FAILURE, "not the number of an item"),
        (b"failed " + FAILURE, "not the number of an item"),
        (b"failed 1 " + FAILURE.replace(b"error", b"odd"), "'odd' is no kind of failure"),
        (b"failed 1 " + FAILURE.replace(b"false", b"0"), "'fatal' is missing or of another type"),
        (b'memory {"rss_bytes":true}', "'rss_bytes' is missing or of another type"),
        (b"left over", "nothing may follow this word: 'left over'"),
        (b"\xff\xfe", r"no such message: '\xff\xfe'"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_report_that_no_worker_sends_is_refused(line: bytes, words: str) -> None:
    """With what is wrong and the beginning of the line."""
    with pytest.raises(lines.ProtocolBroken) as caught:
        lines.parse_report(line)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"ready {}", "no such message"),
        (b"leave now", "nothing may follow this word"),
        (b"setup {}", "'entry' is missing"),
        (b'do {"batch":null,"items":[1]}', "not pairs of a number and an item"),
        (b'do {"batch":null,"items":[[1]]}', "not pairs of a number and an item"),
        (b'do {"batch":"2","items":[]}', "'batch' is missing or of another type"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_an_order_that_no_runner_gives_is_refused(line: bytes, words: str) -> None:
    """The other way round, too."""
    with pytest.raises(lines.ProtocolBroken) as caught:
        lines.parse_order(line)
    assert words in str(caught.value)


def test_milliseconds_cross_as_a_decimal() -> None:
    """To the microsecond, and never in a notation that another reader may not know."""
    assert lines.encode_done(3, 0.00049, b"null") == b"done 3 0.000 null\n"
    assert lines.encode_done(3, 1e9 + 0.0015, b"[1, 2]") == b"done 3 1000000000.002 [1, 2]\n"
    assert lines.parse_report(b"done 3 1.5 [1, 2]") == messages.Done(3, 1.5, b"[1, 2]")


def test_what_does_not_fit_is_not_sent() -> None:
    """A line of exactly the limit is sent and read; one byte more is refused by its writer."""
    room = LINE_LIMIT_BYTES - len(b"done 1 0.000 ")
    longest = lines.encode_done(1, 0, b"x" * room)
    (line,) = lines.Lines().feed(longest)
    assert len(line) == LINE_LIMIT_BYTES
    with pytest.raises(lines.LineTooLong, match="16,777,218 bytes, more than the 16,777,216"):
        lines.encode_done(1, 0, b"x" * (room + 1))


def test_an_item_that_cannot_be_listed_is_named_by_its_place() -> None:
    """Too long for a line, no JSON, or with keys that have no order."""
    assert b"".join(listing(iter(["a", {"c": 1, "b": 2}]))) == b'"a"\n{"b":2,"c":1}\nend\n'
    with pytest.raises(lines.LineTooLong, match="item 7 has 16,777,218 bytes: name a file"):
        line_of("x" * LINE_LIMIT_BYTES, 7)
    with pytest.raises(TypeError, match="not supported between instances"):
        line_of({1: 1, "a": 2}, 7)
