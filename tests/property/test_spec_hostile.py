import json
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from supervisor.core.causes import Cause
from supervisor.core.secrets import is_secret
from supervisor.spec.compare import differences
from supervisor.spec.effective import shown
from supervisor.spec.fields import keys_at, models_at
from supervisor.spec.frozen import freeze, thaw
from supervisor.spec.job import JobFile, JobSpec
from supervisor.spec.load import load_job
from supervisor.spec.plan import plan
from supervisor.spec.problems import SpecError
from supervisor.spec.units import read_duration, read_size, write_duration, write_size

ACCEPTED = [
    path.read_text()
    for path in sorted((Path(__file__).parents[1] / "golden" / "spec").glob("ok-*.yaml"))
]
JARGON = ("pydantic", "Input should", "Value error", "type=", "Traceback")
quick = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

KEYS = sorted({key for name in JobFile.model_fields for key in (name, *keys_at((name,)))})
words = st.sampled_from(
    [
        *KEYS,
        *Cause,
        "hf",
        "append",
        "auto",
        "retry_other_gpu",
        "gpu",
        "cpu",
        "CUDA_VISIBLE_DEVICES",
        "regex",
        "shim",
        "pkg:f",
        "photos/*.jpg",
        "net.pt2",
        "vit",
        "shrink_chunk",
        "quarantine_item",
        "10m",
        "20GiB",
        "${a}",
        "$${a}",
        "${",
        "{path}",
        "{",
        "[",
        "(?P<step>x)",
        "(x)",
        "TERM",
        "",
        "\0",
        "\ud800",
        "\x1b[2J",
        "9" * 500,
    ]
)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), words, st.text(max_size=8)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.one_of(words, st.text(max_size=5)), inner, max_size=5)
    ),
    max_leaves=12,
)
near_jobs = st.fixed_dictionaries(
    {"name": st.just("a")},
    optional={
        name: values
        | st.dictionaries(st.sampled_from(keys_at((name,)) or ("a", "lr")), values, max_size=4)
        for name in JobFile.model_fields
        if name != "name"
    },
)


def outcome(path: Path, content: bytes, **values: str) -> JobSpec | None:
    """Load a file: a job, or problems that a person can read."""
    path.write_bytes(content)
    try:
        return load_job(path, values)
    except SpecError as caught:
        error = caught
    text = str(error)
    assert error.problems
    assert all(problem.message for problem in error.problems)
    # What the file itself says is quoted.
    assert not [word for word in JARGON if word in text and word.encode() not in content]
    assert all(char == "\n" or char.isprintable() for char in text)
    assert text == text.encode().decode()
    assert json.dumps(error.as_json())
    return None


@quick
@given(st.binary(max_size=200))
def test_any_bytes_end_in_a_job_or_in_problems(tmp_path: Path, content: bytes) -> None:
    """Rubbish never gives a traceback."""
    outcome(tmp_path / "job.yaml", content)


@quick
@given(st.text(alphabet=string.printable + "\u2028\ufeff\u0085é日", max_size=120))
def test_any_text_ends_in_a_job_or_in_problems(tmp_path: Path, text: str) -> None:
    """Nor does any mixture of YAML's own signs."""
    outcome(tmp_path / "job.yaml", text.encode())


@settings(quick, max_examples=150)
@given(near_jobs, st.dictionaries(st.sampled_from(["a", "lr"]), st.text(max_size=4), max_size=1))
def test_any_structure_ends_in_a_job_or_in_problems(
    tmp_path: Path, data: dict[str, Any], given_values: dict[str, str]
) -> None:
    """Every kind of value in every field has words for what is wrong with it."""
    # JSON is YAML, save for what only Python's JSON writes.
    text = json.dumps(data).replace("NaN", ".nan").replace("Infinity", ".inf")
    outcome(tmp_path / "job.yaml", text.encode(), **given_values)


@quick
@given(st.sampled_from(ACCEPTED), st.data())
def test_a_good_file_with_a_slip_ends_in_a_job_or_in_problems(
    tmp_path: Path, text: str, data: st.DataObject
) -> None:
    """Deleting, doubling or inserting anywhere never gives a traceback."""
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 12)))
    put = data.draw(
        st.sampled_from(["", text[start:end] * 2, "\t", ":", "- ", "{", "\n", "'", "#"])
    )
    outcome(tmp_path / "job.yaml", (text[:start] + put + text[end:]).encode())


plain = st.text(
    alphabet=st.characters(
        exclude_categories=["Cs", "Cc"], exclude_characters="\u2028\u2029\ufeff"
    ),
    max_size=12,
)
names = plain.filter(lambda name: name and "=" not in name and name != "<<")
filled = plain.map(lambda text: text.replace("${", "$ {"))
sizes = st.integers(2 * 1024**2, 1024**5)
limits = {
    "memory": sizes,
    "cpus": st.integers(1, 4096),
    "pids": st.integers(1, 4_194_304),
    "open_files": st.integers(16, 1_073_741_816),
    "core_dumps": st.booleans(),
}
resources = st.fixed_dictionaries({}, optional=limits) | st.fixed_dictionaries(
    {"gpus": st.integers(1, 64), "gpu_memory": sizes},
    optional={**limits, "share_gpu": st.booleans(), "gpu_memory_soft": st.just(2 * 1024**2 - 1)},
)
good_jobs = st.fixed_dictionaries(
    {
        "name": st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,20}\Z"),
        "command": st.lists(filled, min_size=1, max_size=4).filter(lambda argv: argv[0] != ""),
    },
    optional={
        "cwd": filled.filter(bool),
        "env": st.dictionaries(names | st.sampled_from(["HF_TOKEN", "Passwd"]), filled, max_size=3),
        "timeouts": st.fixed_dictionaries(
            {},
            optional={
                "stop": st.integers(0, 10**6),
                "total": st.integers(1, 10**6),
                "heartbeat": st.just("auto") | st.integers(1, 10**6),
            },
        ),
        "resources": resources,
        "liveness": st.permutations(["heartbeat", "output", "checkpoint", "gpu", "cpu"]),
        "done": st.fixed_dictionaries(
            {"step": st.integers(1, 10**9)}, optional={"file": st.just("D")}
        ),
        "restart": st.fixed_dictionaries(
            {}, optional={"budget": st.integers(0, 99), "window": st.integers(1, 10**6)}
        ),
        "checkpoint": st.sampled_from(
            [{"preset": name} for name in ("hf", "mmengine", "dcp", "session")]
        ),
    },
)

arguments = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.just(0.25) | filled,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
    ),
    max_leaves=6,
)
batch_jobs = st.fixed_dictionaries(
    {
        "name": st.just("a"),
        "map": st.fixed_dictionaries(
            {"entry": st.just("p.q:f"), "items": filled.filter(str.strip)},
            optional={
                "args": st.dictionaries(st.sampled_from("abc"), arguments, max_size=3),
                "batch": st.integers(1, 9),
                "out": filled.filter(bool),
            },
        ),
    },
    optional={
        "warm": st.booleans() | st.lists(st.sampled_from(["torch", "a.b"]), max_size=2),
        "chunks": st.fixed_dictionaries(
            {"size": st.integers(9, 99)},
            optional={
                "parallel": st.integers(1, 64),
                "isolation": st.sampled_from(["recycle", "chunk"]),
                "poison": st.sampled_from(["quarantine", "fail"]),
                "recycle": st.fixed_dictionaries(
                    {}, optional={"items": st.integers(1, 99), "gpu_growth": st.none() | sizes}
                ),
            },
        ),
        "timeouts": st.fixed_dictionaries({"item": st.integers(1, 9), "chunk": st.integers(9, 99)}),
        "restart": st.just({"on": {"cuda_oom": "shrink_chunk", "hang": "quarantine_item"}}),
    },
)
numbers = st.integers(1, 10**6)
training = st.fixed_dictionaries(
    {"entry": st.just("p.q:f"), "steps": st.integers(100, 10**9)},
    optional={
        "args": st.dictionaries(st.sampled_from("abc"), arguments, max_size=3),
        "out": filled.filter(bool),
        "seed": st.integers(0, 2**63 - 1),
        "precision": st.sampled_from(["fp32", "bf16", "fp16"]),
        "compile": st.booleans(),
        "processes": st.integers(1, 64),
        "loader": st.fixed_dictionaries(
            {"workers": st.integers(1, 9), "prefetch": st.integers(1, 9)},
            optional={"pin": st.sampled_from(["auto", True, False])},
        ),
        "snapshot": st.none() | st.integers(1, 10**6),
        "save": st.fixed_dictionaries(
            {"steps": numbers}, optional={"every": st.none() | numbers, "best": st.just("loss")}
        ),
        "schedule": st.fixed_dictionaries(
            {"kind": st.just("step"), "every": numbers},
            optional={"factor": st.floats(1e-9, 1), "floor": st.floats(0, 1)},
        ),
        "clip": st.none() | st.floats(1e-9, 1e9),
        "profile": st.none() | st.just({}) | st.just({"start": 3}),
    },
)
training_jobs = st.fixed_dictionaries(
    {"name": st.just("a"), "train": training},
    optional={
        "cwd": filled.filter(bool),
        "liveness": st.permutations(["heartbeat", "output", "checkpoint"]),
        "warm": st.just([]),
    },
)
good_jobs |= batch_jobs | training_jobs


def secrets_of(spec: JobSpec) -> dict[str, str]:
    """Return the variables that no output shows as they are."""
    return {name: value for name, value in spec.env.items() if is_secret(name, value)}


@quick
@given(good_jobs)
def test_plan_and_frozen_form_keep_every_job(tmp_path: Path, data: dict[str, Any]) -> None:
    """Any good job comes back the same from its frozen form, and but for secrets from its plan."""
    spec = outcome(tmp_path / "job.yaml", json.dumps(data, ensure_ascii=False).encode())
    assert spec is not None

    assert spec == thaw(freeze(spec))
    assert shown(spec) == outcome(tmp_path / "job.yaml", plan(spec).encode())
    assert spec == shown(spec).model_copy(update={"env": {**shown(spec).env, **secrets_of(spec)}})


@quick
@given(good_jobs, good_jobs)
def test_jobs_differ_where_their_frozen_forms_do(
    tmp_path: Path, one: dict[str, Any], other: dict[str, Any]
) -> None:
    """No change of a job goes unmentioned, and nothing is mentioned that did not change."""
    specs = [outcome(tmp_path / "job.yaml", json.dumps(data).encode()) for data in (one, other)]
    old, new = (spec for spec in specs if spec is not None)

    assert (freeze(old) == freeze(new)) == (not differences(old, new))


@given(st.integers(0, 3650 * 86400 * 1000))
def test_a_duration_is_read_as_it_was_written(milliseconds: int) -> None:
    """To the millisecond, over ten years."""
    seconds = milliseconds / 1000

    assert seconds == pytest.approx(read_duration(write_duration(seconds)), abs=1e-6)


@given(st.integers(0, 1024**5))
def test_a_size_is_read_as_it_was_written(count: int) -> None:
    """To the byte."""
    assert count == read_size(write_size(count))


def test_every_section_is_found_by_its_place() -> None:
    """The walk through the schema reaches nested sections and entries of lists."""
    names = [
        models_at(where)[0].__name__
        for where in [
            (),
            ("restart", "backoff"),
            ("rules", 0),
            ("params", "lr"),
            ("chunks", "recycle"),
            ("gradcam", "preprocess"),
            ("train", "schedule"),
        ]
    ]

    assert names == ["JobFile", "Backoff", "Rule", "Param", "Recycle", "Preprocess", "Schedule"]
