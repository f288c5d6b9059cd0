"""Bodies that hold as many mistakes as fit: the first few are told, and no others are even made."""

import pytest
from pydantic import ValidationError

from supervisor.daemon.api.errors import invalid_request
from supervisor.daemon.api.models import Retry, Submission
from supervisor.daemon.contracts import Refusal
from supervisor.daemon.desk_fields import text

MANY = 20_000
MOST_ERRORS = 2000
JOB = {"job": {"name": "net"}, "folder": "/home/ada"}
STRANGERS = {f"field{number}": 1 for number in range(MANY)}
LETTERS = "abcdefghij"
RESOURCES = [one + other for one in LETTERS for other in LETTERS]


def of_job(**more):
    """A submission of one job with these fields."""
    return {"jobs": [JOB | more]}


def around(**fields):
    """A submission with these surroundings."""
    return {"jobs": [JOB], "surroundings": fields}


def refused(kind, body):
    """What is wrong with a body, as pydantic has it."""
    with pytest.raises(ValidationError) as caught:
        kind.model_validate(body)
    return caught.value


def told(kind, body):
    """What is wrong with a body, in words."""
    found = refused(kind, body).errors()
    return str(invalid_request([one | {"loc": ("body", *one["loc"])} for one in found]))


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (Retry, {"items": [[]] * MANY}),
        (Retry, {"items": ["a"] * MANY + [{}] * MANY}),
        (Retry, STRANGERS),
        (Submission, STRANGERS),
        (Submission, {"jobs": [{}] * 1000}),
        (Submission, {"jobs": [JOB | dict.fromkeys(list(STRANGERS)[:100])] * 1000}),
        (Submission, of_job(**STRANGERS)),
        (Submission, of_job(after=[[]] * 1000)),
        (Submission, of_job(params={key: [] for key in STRANGERS})),
        (Submission, of_job(params={key: [] for key in list(STRANGERS)[:1000]})),
        (Submission, around(**STRANGERS)),
        (Submission, around(env={key: [] for key in list(STRANGERS)[:10000]})),
        (Submission, around(env_keep=[[]] * 10_000)),
        (Submission, around(limits=dict.fromkeys(STRANGERS, 5))),
        (Submission, around(limits={key: ["a", "b"] for key in RESOURCES[:60]})),
    ],
    ids=map(str, range(15)),
)
def test_no_body_makes_many_mistakes_to_be_told(kind, body):
    """However many there are in it: whoever looks stops early."""
    assert refused(kind, body).error_count() <= 20


def test_the_worst_few_jobs_stay_bounded():
    """As many as are all told of, each with all the mistakes that it can have."""
    worst = dict.fromkeys(list(STRANGERS)[:13]) | {
        "job": 1,
        "folder": 1,
        "params": {key: [] for key in map(str, range(900))},
        "after": [[]] * 900,
    }
    assert refused(Submission, {"jobs": [worst] * 50}).error_count() <= MOST_ERRORS


def test_the_first_mistake_is_told_with_its_place():
    """Wherever in a list or a mapping it is."""
    assert "body: items" in told(Retry, {"items": ["a"] * 500 + [[]] * 500})
    assert "[500]" in told(Retry, {"items": ["a"] * 500 + [[]] * 500})
    jobs = [JOB] * 300 + [JOB | {"priority": 101, "key": ""}] * 9
    words = told(Submission, {"jobs": jobs})
    assert "body: jobs[300].priority: input should be less than 101" in words
    assert "jobs[300].key" in words
    env = {f"A{number}": "1" for number in range(5000)} | {"B": 5}
    assert "surroundings.env.B: input should be a valid string" in told(Submission, around(env=env))
    assert "after[3]" in told(Submission, of_job(after=["a", "b", "c", 4]))


def test_too_many_of_anything_is_said_with_both_numbers():
    """How many there may be, and how many there are."""
    params = dict.fromkeys(list(STRANGERS)[:1001], 1)
    words = told(Submission, of_job(params=params))
    assert "params: dictionary should have at most 1000 items after validation, not 1001" in words
    assert "at most 64 items" in told(
        Submission, around(limits={key: [1, 1] for key in RESOURCES[:65]})
    )


def test_a_crowd_of_unknown_fields_is_one_mistake():
    """With the first of them by name."""
    words = told(Submission, of_job(**STRANGERS))
    assert "jobs[0]: there are no such fields: 'field0', 'field1'" in words
    assert "and 19995 more" in words


def test_what_is_right_is_taken_however_much_of_it_there_is():
    """Nothing of it is lost or changed on the way."""
    params = {f"p{number}": value for number, value in enumerate([1, 2.5, "x", True] * 200)}
    env = {f"A{number}": str(number) for number in range(9999)}
    limits = {key: [1024, -1] for key in RESOURCES[:64]}
    body = {"jobs": [JOB | {"params": params}] * 60}
    body["surroundings"] = {"env": env, "limits": limits, "env_keep": list(env)}
    found = Submission.model_validate(body)
    assert [one.params for one in found.jobs] == [params] * 60
    assert [type(one) for one in found.jobs[0].params.values()] == [int, float, str, bool] * 200
    assert found.surroundings.said() == body["surroundings"]
    items = ["a", 7] * 50_000
    assert Retry.model_validate({"items": items}).items == items


def test_a_long_name_is_cut_where_it_is_told():
    """A field's name may be as long as the body."""
    assert len(told(Submission, around(**{"x" * 100_000: 1}))) < 200
    assert len(told(Submission, around(env={"A": "\0" * 100_000}))) < 600


class Whole(str):
    """A text that is not looked at one character after the other."""

    __slots__ = ()

    def __iter__(self):
        """Fail the test."""
        pytest.fail("somebody walks over the characters")


def test_a_long_text_is_looked_at_as_a_whole():
    """A walk over four million characters takes all others' time."""
    kind = text(1000)
    assert kind("spec", Whole("{} \U0001f600 \ue000 \ud7ff")) == "{} \U0001f600 \ue000 \ud7ff"
    for wrong in ("a\0", "\ud800", "\udfff", "a\udc80b", "\ud83d\ude00", "x" * 1001):
        with pytest.raises(Refusal, match="not a text of at most 1000 characters"):
            kind("spec", Whole(wrong))


@pytest.mark.parametrize(
    ("value", "fits"),
    [
        ([10**18 - 1, 123456789012345678] * 9, True),
        ("1234567890123456789" * 3, True),
        ([1, {"a": -(10**18)}], False),
        (1234567890123456789, False),
    ],
)
def test_numbers_of_nineteen_digits_are_refused_wherever_they_are(value, fits):
    """Digits in a text are none of a number."""
    body = {"jobs": [{"job": {"name": value}, "folder": "/home/ada"}]}
    if fits:
        assert Submission.model_validate(body).jobs[0].job == {"name": value}
    else:
        assert "a number is beyond 10^18" in told(Submission, body)


def test_a_job_larger_than_any_job_file_is_refused_at_once():
    """Before it is taken apart, and before a clerk is asked; of what fits nothing is lost."""
    word = "larger than 1 MiB, which no job file is"
    assert word in told(Submission, of_job(job={"name": "x" * (1 << 20)}))
    assert word in told(Submission, of_job(params={"x": "\u00e9" * (1 << 19)}))
    most = {"name": "x" * ((1 << 20) - len('{"name": ""}'))}
    assert Submission.model_validate(of_job(job=most)).jobs[0].job == most


@pytest.mark.parametrize("sign", ["\x1b", "\n", "\x7f", "\x9b", "\x85"])
def test_a_label_cannot_steer_a_terminal(sign):
    """Neither with a sign of ASCII nor with one of the eight-bit terminals."""
    for field in ("key", "group"):
        assert refused(Submission, of_job(**{field: f"a{sign}b"})).error_count() == 1
    assert refused(Submission, of_job(after=[f"a{sign}b"])).error_count() == 1
