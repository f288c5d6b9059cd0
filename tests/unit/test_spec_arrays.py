import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from supervisor.spec.arrays import combinations, combinations_of_text, refuse_array
from supervisor.spec.compare import differences
from supervisor.spec.flow import in_flow
from supervisor.spec.frozen import freeze, thaw
from supervisor.spec.job import JobSpec
from supervisor.spec.load import load_job
from supervisor.spec.plan import plan
from supervisor.spec.problems import MAX_PROBLEMS, Problem, SpecError

BASE = 'name: net\ncommand: [python, "${lr}", "${seed}"]\nparams: {lr: {type: float}, seed: 1}\n'
LR_SEED = "array: {lr: [0.1, 1e-2], seed: [1, 2]}\n"
SOURCE = Path("/jobs/job.yaml")


def jobs(text: str, given: Any = None, arrays: Any = None) -> list[JobSpec]:
    """Return the jobs of a file with this text."""
    return combinations_of_text(text, SOURCE, given, arrays)


def refused(text: str, given: Any = None, arrays: Any = None) -> list[Problem]:
    """Return what is wrong with it."""
    with pytest.raises(SpecError) as caught:
        jobs(text, given, arrays)
    return list(caught.value.problems)


def test_each_combination_is_a_job_and_the_last_param_is_fastest() -> None:
    """As nested loops in the order of the file; the text of each value as it was written."""
    found = jobs(BASE + LR_SEED)

    assert [tuple(spec.values.values()) for spec in found] == [
        ("0.1", "1"),
        ("0.1", "2"),
        ("1e-2", "1"),
        ("1e-2", "2"),
    ]
    assert [spec.command for spec in found][2] == ("python", "1e-2", "1")


def test_a_job_of_an_array_is_that_of_the_same_values_given() -> None:
    """Nothing of it tells that there were others."""
    (first, *_), (alone,) = jobs(BASE + LR_SEED), jobs(BASE, {"lr": "0.1", "seed": "1"})

    assert freeze(first) == freeze(alone)
    assert not differences(first, alone)
    assert first == thaw(freeze(first))


def test_the_command_line_has_arrays_too_and_comes_before_the_file() -> None:
    """`-p lr=1,2` instead of the file's values; `-p seed=7` closes the file's array of it."""
    found = jobs(BASE + LR_SEED, {"seed": "7"}, {"lr": ("1", "2")})

    assert [spec.values for spec in found] == [{"lr": "1", "seed": "7"}, {"lr": "2", "seed": "7"}]


def test_a_file_without_an_array_is_one_job(tmp_path: Path) -> None:
    """And it is what `load_job` gives."""
    path = tmp_path / "job.yaml"
    path.write_text(BASE)

    assert combinations(path, {"lr": "0.1"}) == [load_job(path, {"lr": "0.1"})]


def test_until_it_is_chosen_a_param_has_its_first_value(tmp_path: Path) -> None:
    """So the rest of the file is checked; the spec says what is open, and `run` refuses it."""
    path = tmp_path / "job.yaml"
    path.write_text(BASE + LR_SEED)
    spec = load_job(path, {"seed": "2"})

    assert (dict(spec.array), spec.values) == ({"lr": ("0.1", "1e-2")}, {"lr": "0.1", "seed": "2"})
    with pytest.raises(SpecError) as caught:
        refuse_array(spec)
    (problem,) = caught.value.problems
    assert problem.line == 4
    assert problem.message == "array: this file makes 2 jobs, and one is to run"
    assert problem.hint == "choose one: -p lr=0.1\nor queue them all: supervise submit job.yaml"


def test_nothing_open_is_nothing_to_refuse(tmp_path: Path) -> None:
    """With every param of the array given, `run` runs it."""
    path = tmp_path / "job.yaml"
    path.write_text(BASE + LR_SEED)
    spec = load_job(path, {"seed": "2", "lr": "3"})

    refuse_array(spec)

    assert (spec.array, spec.values) == ({}, {"lr": "3", "seed": "2"})


def test_the_jobs_of_an_array_are_a_group_where_failures_are_counted() -> None:
    """Also an array of the command line; a group that is named stays."""
    arrays = {"lr": ("1", "2")}

    assert [spec.group for spec in jobs(BASE + "hold_after: 2\n", None, arrays)] == ["net", "net"]
    assert jobs(BASE + "hold_after: 2\ngroup: x\n", None, arrays)[0].group == "x"
    assert jobs(BASE, None, arrays)[0].group is None


@pytest.mark.parametrize(
    ("more", "message", "hint"),
    [
        (
            "checkpoint: {preset: hf, dir: runs/}\n",
            "checkpoint.dir: 4 jobs of the array would write to /jobs/runs",
            'dir: "runs/${lr}/${seed}"',
        ),
        (
            'checkpoint: {preset: hf, dir: "runs/${lr}"}\n',
            "checkpoint.dir: 2 jobs of the array would write to /jobs/runs/0.1",
            'dir: "runs/${lr}/${seed}"',
        ),
        (
            'checkpoint: {preset: hf}\ncwd: "${seed}"\n',
            "checkpoint.dir: 2 jobs of the array would write to /jobs/1",
            'dir: "${lr}"',
        ),
    ],
)
def test_jobs_that_would_write_to_one_folder_are_refused(
    more: str, message: str, hint: str
) -> None:
    """The message shows which params to put where."""
    (problem,) = refused(BASE + LR_SEED + more)

    assert message == problem.message
    assert problem.hint == f"give each a folder of its own, such as {hint}"
    assert problem.line >= 5


@pytest.mark.parametrize(
    ("section", "folder", "hint"),
    [
        ('train: {entry: "p:f", epochs: 1}', "/jobs/out", 'out: "out/${lr}"'),
        ('map: {entry: "p:f", items: "x/*", out: ./}', "/jobs", 'out: "${lr}"'),
        ('gradcam: {model: "p:f", images: "x/*"}', "/jobs/heat", 'out: "heat/${lr}"'),
    ],
)
def test_every_kind_of_job_writes_somewhere(section: str, folder: str, hint: str) -> None:
    """Told once, also of a training job, which writes checkpoints below `out`."""
    (problem,) = refused(f"name: a\n{section}\nparams: {{lr: 1}}\narray: {{lr: [1, 2]}}\n")

    assert problem.message.endswith(f": 2 jobs of the array would write to {folder}")
    assert problem.hint.endswith(f"such as {hint}")


def test_one_key_for_all_is_refused() -> None:
    """Only the first of them would ever be queued."""
    (problem,) = refused(BASE + LR_SEED + 'key: "x-${lr}"\n')

    assert problem.message == "key: 2 jobs of the array would have the key 'x-0.1'"
    assert problem.hint.endswith('such as key: "x-${lr}-${seed}"')
    assert len(jobs(BASE + LR_SEED + 'key: "x-${lr}-${seed}"\n')) == 4


def test_what_is_wrong_with_one_job_says_with_which() -> None:
    """Every bad value is told, each once, however many jobs have it."""
    text = "array: {lr: [0.1, 0.2], seed: [1, 0, -2]}\n" + 'timeouts: {total: "${seed}"}\n'
    found = refused(BASE + text)

    assert [(each.line, each.column, each.message) for each in found] == [
        (5, 19, "timeouts.total: zero makes no sense here"),
        (5, 19, "timeouts.total: -2 is not a duration"),
    ]
    assert all(
        each.hint.endswith(f"in the job of the array with lr=0.1, seed={seed}")
        for each, seed in zip(found, (0, -2), strict=True)
    )


def test_what_is_wrong_with_all_of_them_is_told_once() -> None:
    """And quickly: nobody checks thousands of jobs that have the same mistake."""
    found = refused(BASE + "comand: [x]\n", None, {"seed": [str(n) for n in range(9000)]})

    assert [each.message for each in found] == [
        "unknown key 'comand'",
        "param 'lr' has no default and is not given",
    ][::-1]


def test_no_more_problems_are_told_than_anybody_reads() -> None:
    """Thousands of bad combinations stop early."""
    many = [str(-n) for n in range(-1, 9000)]
    found = refused(BASE + 'timeouts: {total: "${seed}"}\n', {"lr": "1"}, {"seed": many})

    assert len(found) <= MAX_PROBLEMS


@pytest.mark.parametrize(
    ("given", "arrays", "told"),
    [
        ({}, {"lr": ("1", "x")}, "lr=x: 'x' is not a float"),
        ({}, {"lr": ("1", "1.0")}, "lr=1.0: '1.0' is the same as '1', given before"),
        ({}, {"lr": ()}, "lr=...: there is no value"),
        ({"lr": "1"}, {"lr": ("1", "2")}, "lr=...: it is given as one value, too"),
        ({"lr": "1"}, {"sed": ("1", "2")}, "sed=1,2: this job has no param 'sed'"),
        ({"lr": "1,2"}, {}, "lr=1,2: '1,2' is not a float"),
    ],
)
def test_a_slip_in_an_array_of_the_command_line_names_the_option(
    given: Any, arrays: Any, told: str
) -> None:
    """There is no line to point at."""
    assert told in [f"{each.option}: {each.message}" for each in refused(BASE, given, arrays)]


def test_too_many_jobs_are_refused_before_any_is_made() -> None:
    """A slip of one comma must not fill the queue, or the memory."""
    hundreds = [str(n) for n in range(1000)]
    (problem,) = refused(BASE, None, {"lr": hundreds, "seed": hundreds})

    assert problem.message == "the array makes 1,000,000 jobs (1000 x 1000); at most 10,000"
    assert problem.option == "lr=... -p seed=..."


def test_a_thousand_jobs_take_a_moment() -> None:
    """The file is parsed once; five times the time it takes on a slow core."""
    more = 'checkpoint: {preset: hf, dir: "runs/${lr}"}\nenv: {A: "${seed}"}\n'
    began = time.perf_counter()

    found = jobs(BASE + more, None, {"lr": [str(n) for n in range(1000)]})

    assert len(found) == 1000
    assert time.perf_counter() - began < 5


texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]))
values = st.lists(texts.filter(lambda text: text != "\ufeff"), min_size=1, max_size=3, unique=True)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(values, st.lists(st.integers(-(10**9), 10**9), min_size=1, max_size=3, unique=True))
def test_any_values_reach_their_jobs(words: list[str], numbers: list[int]) -> None:
    """As they were written, in whichever notation; each job freezes and prints."""
    written = in_flow({"word": words, "n": numbers})
    base = 'name: a\ncommand: [x, "${word}", "${n}"]\nparams: {word: "", n: 0}\n'

    found = jobs(f"{base}array: {written}\n")

    assert [spec.command for spec in found] == [
        ("x", word, str(number)) for word in words for number in numbers
    ]
    assert all(plan(spec) and thaw(freeze(spec)) == spec for spec in found)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(
    anything,
    st.dictionaries(st.sampled_from("abc"), st.text(max_size=4), max_size=2),
    st.dictionaries(st.sampled_from("abc"), st.lists(st.text(max_size=4), max_size=3)),
)
def test_whatever_is_given_there_are_jobs_or_problems(array: Any, given: Any, arrays: Any) -> None:
    """No shape of `array` and no option ends in a traceback."""
    text = f'name: n\ncommand: [x, "${{a}}"]\nparams: {{a: 1, b: x}}\narray: {in_flow(array)}\n'
    try:
        told = str({bool(spec.array) for spec in jobs(text, given, arrays)})
    except SpecError as error:
        told = str(error)

    assert told not in ("", "{True}")
