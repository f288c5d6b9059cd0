"""What one client may take."""

import http.client
import io
import json

import pytest
from structlog.testing import capture_logs

from supervisor.daemon.api import errors
from supervisor.daemon.api.limits import MIB, Crowd, Limits, Rates, body_problem, head_problem
from supervisor.daemon.api.refusals import RefusalLog
from supervisor.daemon.contracts import NoSuchJob, ShelfUnavailable


@pytest.mark.parametrize(
    ("target", "fields", "expected"),
    [
        (b"/v1/jobs", [(b"host", b"localhost")], None),
        (b"/" + b"a" * 5000, [], errors.TargetTooLong),
        (b"http://elsewhere/", [], errors.BadRequest),
        (b"*", [], errors.BadRequest),
        (b"/", [(b"transfer-encoding", b"chunked")], errors.LengthRequired),
        (b"/", [(b"content-length", b"%d" % (4 * MIB))], None),
        (b"/", [(b"content-length", b"%d" % (4 * MIB + 1))], errors.TooLarge),
        (b"/", [(b"content-length", b"9" * 5000)], errors.TooLarge),
        (b"/", [(b"a", b"")] * 101, errors.HeadTooLarge),
    ],
)
def test_a_head_is_judged(target, fields, expected):
    """Each bound refuses what is beyond it, with its own status, and nothing else."""
    found = head_problem(Limits(), target, fields)
    assert (None if found is None else type(found)) is expected


def test_a_body_of_countless_values_is_not_parsed():
    """What costs the parser most is counted before; a long text costs nothing."""
    limits = Limits()
    assert isinstance(body_problem(limits, b"[" + b"[]," * 80_000 + b"[]]"), errors.TooLarge)
    assert body_problem(limits, json.dumps({"jobs": ["x" * 3 * MIB]}).encode()) is None


def test_a_user_is_bounded_by_what_is_theirs():
    """One who has too many connections is refused; another gets in, and again after some leave."""
    crowd = Crowd(Limits(connections=10, connections_per_user=2, reserved=1))
    crowd.enter(1)
    crowd.enter(1)
    with pytest.raises(errors.TooManyConnections, match="2 connections of yours"):
        crowd.enter(1)
    crowd.enter(2)
    crowd.leave(1)
    crowd.enter(1)


def test_root_gets_in_when_all_is_full():
    """A place is kept for the one who has to look what is wrong."""
    crowd = Crowd(Limits(connections=2, connections_per_user=2, reserved=1))
    crowd.enter(1)
    crowd.enter(2)
    with pytest.raises(errors.TooManyConnections, match="as many as are served"):
        crowd.enter(3)
    crowd.enter(0)
    with pytest.raises(errors.TooManyConnections):
        crowd.enter(0)


def test_a_bucket_empties_and_fills():
    """A burst is allowed, then the rate; users do not share, and waiting helps exactly as said."""
    rates = Rates(Limits(requests_per_s=10, burst=2))
    rates.spend(1, 1, 0.0)
    rates.spend(1, 1, 0.0)
    with pytest.raises(errors.TooManyRequests) as refused:
        rates.spend(1, 1, 0.0)
    assert refused.value.retry_s == pytest.approx(0.1)
    rates.spend(2, 1, 0.0)
    rates.spend(1, 1, 0.1)


def test_what_costs_more_than_a_bucket_is_allowed_once_it_is_full():
    """A large body is never refused for ever."""
    rates = Rates(Limits(requests_per_s=10, burst=2))
    rates.spend(1, 50, 0.0)
    with pytest.raises(errors.TooManyRequests):
        rates.spend(1, 1, 0.1)


def test_users_are_forgotten():
    """Who has not asked for long is no burden."""
    rates = Rates(Limits(requests_per_s=10, burst=10))
    for uid in range(3000):
        rates.spend(uid, 1, uid * 1.0)
    assert len(rates._left) < 1100


def test_kinds_are_the_names_of_refusals():
    """A program sees the class of a refusal, whoever defines it."""
    assert errors.kind(NoSuchJob("x")) == "no_such_job"
    assert errors.kind(ShelfUnavailable("x")) == "shelf_unavailable"
    assert errors.kind(errors.TooManyRequests("x")) == "too_many_requests"


class _Bytes:
    def __init__(self, content: bytes) -> None:
        self._content = content

    def makefile(self, _mode: str) -> io.BytesIO:
        """Give what HTTPResponse reads."""
        return io.BytesIO(self._content)


def test_a_refusal_before_there_is_a_request_is_http():
    """The bytes that the connection writes are an answer as any other."""
    refusal = errors.TooManyRequests("wait", 2.4)
    response = http.client.HTTPResponse(_Bytes(errors.raw_response(refusal)))  # type: ignore[arg-type] # it only asks for a file
    response.begin()
    told = json.loads(response.read())
    assert (response.status, told) == (
        429,
        {"error": {"kind": "too_many_requests", "message": "wait"}},
    )
    assert response.headers["Retry-After"] == "2"
    assert response.headers["Supervise-Api"] == "1"


def test_refusals_fill_no_disk():
    """Of many only the first are written; later ones say how many were left out."""
    now_s = 0.0
    log = RefusalLog(clock=lambda: now_s)
    with capture_logs() as lines:
        for _ in range(1000):
            log.tell(NoSuchJob("x"), 1)
        log.tell(NoSuchJob("x"), 2)
        now_s = 1.0
        log.tell(NoSuchJob("x"), 1, path="/v1/jobs/x")
    assert [line["uid"] for line in lines] == [1] * 20 + [2, 1]
    assert (lines[-1]["left_out"], lines[-1]["path"]) == (980, "/v1/jobs/x")
