from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.spec.batch import BatchPlan, batch_of
from supervisor.spec.compare import differences
from supervisor.spec.frozen import freeze, thaw
from supervisor.spec.job import JobSpec
from supervisor.spec.load import load_job
from supervisor.spec.plan import plan
from supervisor.spec.problems import SpecError
from supervisor.spec.world import check_world

LEAST = 'name: a\nmap: {entry: "pkg:f", items: "*.jpg"}\n'
GIB = 1024**3
Load = Callable[..., JobSpec]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Load a job file with this text."""

    def load(text: str, **given: str) -> JobSpec:
        path = tmp_path / "job.yaml"
        path.write_text(text)
        return load_job(path, given)

    return load


def told(load: Load, text: str) -> list[str]:
    """Return the messages of a refused file."""
    with pytest.raises(SpecError) as caught:
        load(text)
    return [problem.message for problem in caught.value.problems]


def test_an_entry_and_items_are_a_useful_job(load: Load) -> None:
    """Every other field of a batch job has its documented default, also what follows from it."""
    spec = load(LEAST)

    assert spec.chunks is not None
    assert spec.chunks.model_dump(by_alias=True) == {
        "size": 16,
        "parallel": 1,
        "isolation": "recycle",
        "recycle": {"items": None, "age": None, "gpu_growth": GIB, "host_growth": GIB},
        "poison": "quarantine",
    }
    assert spec.map is not None
    assert spec.map.model_dump(exclude={"entry", "items"}) == {
        "args": {},
        "batch": None,
        "out": "out/",
    }
    assert spec.warm is True
    assert (spec.timeouts.item_s, spec.timeouts.chunk_s, spec.command) == (None, None, None)


@pytest.mark.parametrize(
    ("more", "warm"), [("", True), ("warm: false", False), ("warm: [torch, a.b]", ("torch", "a.b"))]
)
def test_a_batch_job_is_warm_unless_it_says_otherwise(load: Load, more: str, warm: object) -> None:
    """What the file says counts, and `false` is not the same as nothing."""
    assert load(LEAST + more).warm == warm


def test_a_command_is_cold_unless_it_says_otherwise(load: Load) -> None:
    """Modules are imported ahead for a script only where that was asked for."""
    script = "name: a\ncommand: [python3, t.py]\n"

    assert load(script).warm is False
    assert load(f"{script}warm: true").warm is True


@pytest.mark.parametrize(
    ("command", "python"),
    [("python", ""), ("python3", ""), (".venv/bin/python", ".venv/bin/python"), ("pypy", "pypy")],
)
def test_a_command_that_is_pythons_may_be_warm(load: Load, command: str, python: str) -> None:
    """By its usual names, or by the name that `python` has."""
    named = f"python: {python}\n" if python else ""

    assert load(f"name: a\ncommand: [{command}, t.py]\n{named}warm: [torch]").warm == ("torch",)


def test_no_batch_job_has_no_plan(load: Load) -> None:
    """A command is not taken for a batch job."""
    spec = load("name: a\ncommand: [x]\n")

    assert batch_of(spec) is None
    assert spec.chunks is None


def test_the_plan_of_a_map_has_absolute_paths(load: Load, tmp_path: Path) -> None:
    """Results lie below the job's cwd, wherever its runner stands."""
    spec = load(
        "name: a\ncwd: sub\n"
        'map: {entry: "p.q:F", items: items.jsonl, args: {a: 1, b: [x]}, batch: 4, out: ../res}\n'
    )

    found = batch_of(spec)

    args = {"a": 1, "b": ["x"]}
    out = tmp_path / "res"
    assert found == BatchPlan("p.q:F", args, "items.jsonl", out, batch=4, contact_sheet=False)
    assert found is not None
    assert found.results == tmp_path / "res" / "results.jsonl"
    assert found.quarantine == tmp_path / "res" / "quarantine.jsonl"


def test_a_gradcam_is_a_map_of_our_own_entry(load: Load, tmp_path: Path) -> None:
    """All its other fields are arguments, as plain data, with files as absolute paths."""
    spec = load(
        'name: a\ngradcam: {model: "p:build", images: "photos/*.jpg", weights: best.pt,\n'
        "  target: 3, labels: /l.txt, preprocess: {size: 96}, args: {n: 2}}\n"
    )

    assert batch_of(spec) == BatchPlan(
        entry="workers.gradcam:GradCam",
        args={
            "model": "p:build",
            "args": {"n": 2},
            "weights": str(tmp_path / "best.pt"),
            "layer": None,
            "target": 3,
            "labels": "/l.txt",
            "preprocess": {
                "size": [96, 96],
                "mean": [0.485, 0.456, 0.406],
                "std": [0.229, 0.224, 0.225],
            },
            "method": "gradcam",
            "reshape": None,
            "colormap": "turbo",
            "alpha": 0.5,
            "device": "auto",
        },
        items="photos/*.jpg",
        out=tmp_path / "heat",
        batch=None,
        contact_sheet=True,
    )


def test_a_model_may_be_a_file(load: Load, tmp_path: Path) -> None:
    """Then it is a path, and found from the job's cwd."""
    found = batch_of(load('name: a\ngradcam: {model: m/net.pt2, images: "*.png"}\n'))

    assert found is not None
    assert found.args["model"] == str(tmp_path / "m" / "net.pt2")


@pytest.mark.parametrize("section", ["map", "gradcam"])
def test_home_is_home(load: Load, monkeypatch: pytest.MonkeyPatch, section: str) -> None:
    """`~` is the home of who runs this, in items and in results."""
    monkeypatch.setenv("HOME", "/home/me")
    given = {
        "map": 'entry: "p:f", items: "~/p/*.jpg", out: ~/out',
        "gradcam": 'model: "p:f", images: "~/p/*.jpg", out: ~/out',
    }

    found = batch_of(load(f"name: a\n{section}: {{{given[section]}}}\n"))

    assert found is not None
    assert (found.items, found.out) == ("/home/me/p/*.jpg", Path("/home/me/out"))


def test_params_keep_their_type_in_arguments(load: Load) -> None:
    """A number alone arrives as a number; within a text, and of the type str, as text."""
    text = (
        "name: a\n"
        "params: {n: 2, x: 0.5, on: true, id: {type: str, default: '007'}}\n"
        'map: {entry: "p:f", items: "*", args: {n: "${n}", x: ["${x}"], on: "${on}", id: "${id}",\n'
        '  both: "${n}${n}", own: "3", yes: {deep: "${on}"}}}\n'
    )

    found = batch_of(load(text, n="7"))

    assert found is not None
    assert found.args == {
        "n": 7,
        "x": [0.5],
        "on": True,
        "id": "007",
        "both": "77",
        "own": "3",
        "yes": {"deep": True},
    }
    assert {type(value) for value in found.args.values()} == {int, list, bool, str, dict}


@pytest.mark.parametrize("target", ["3", '"${t}"'])
def test_a_class_may_be_a_number(load: Load, target: str) -> None:
    """Also where a param gives it."""
    spec = load(
        f'name: a\nparams: {{t: 3}}\ngradcam: {{model: "p:f", images: "*", target: {target}}}\n'
    )

    assert spec.gradcam is not None
    assert spec.gradcam.target == 3


@pytest.mark.parametrize(
    "more",
    [
        "chunks: {isolation: item}",
        "chunks: {size: 1, recycle: {gpu_growth: null, age: 1h}}",
        "timeouts: {item: 1m, chunk: 1m}",
        "restart: {on: {cuda_oom: shrink_chunk, host_oom: shrink_chunk, signal: quarantine_item}}",
        "warm: []",
        "checkpoint: null\nresume: null",
    ],
)
def test_what_goes_together_is_accepted(load: Load, more: str) -> None:
    """The relations refuse contradictions and nothing else."""
    if "resume: null" in more:  # null is no section, for any job
        assert told(load, LEAST + more) == ["resume: null where a mapping belongs"]
        return
    spec = load(LEAST + more)

    assert thaw(freeze(spec)) == spec


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("name: a\nmap: 3\n", ["map: 3 where a mapping belongs"]),
        ("name: a\ngradcam: []\n", ["gradcam: an empty list where a mapping belongs"]),
        (LEAST + "chunks: 3", ["chunks: 3 where a mapping belongs"]),
        ("name: a\nchunks: {size: 2}\n", ["the job has no 'command'"]),
        (LEAST + "command: [x]", ["'map' and 'command' are both given; a job runs one thing"]),
        (
            'name: a\nmap: {entry: "p:f", items: "*", batch: many}\nchunks: {size: 2}',
            ["map.batch: 'many' where a whole number belongs"],
        ),
        (
            'name: a\nmap: {entry: "p:f", items: "*", batch: 4}\nchunks: {size: 0}',
            ["chunks.size: 0 is out of bounds"],
        ),
        (
            'name: a\ngradcam: {model: "p:f", images: "*", target: [1]}',
            ["gradcam.target: a list is no class"],
        ),
        (
            LEAST + "restart: {on: {hagn: shrink_chunk}}",
            ["unknown cause 'hagn' in restart.on"],
        ),
    ],
)
def test_one_slip_is_one_problem(load: Load, text: str, messages: list[str]) -> None:
    """Where a value cannot be read, nothing is concluded from it."""
    assert told(load, text) == messages


def test_a_batch_job_that_was_changed_says_how(load: Load) -> None:
    """Fields that were not there before are told in the file's own words."""
    old = load(LEAST)
    new = load(LEAST + "chunks: {size: 4, recycle: {age: 1h}}\ntimeouts: {item: 90s}")

    assert differences(old, new) == [
        "  timeouts.item: null -> 1m30s",
        "  chunks.size: 16 -> 4",
        "  chunks.recycle.age: null -> 1h",
    ]


@pytest.mark.parametrize(
    ("chunks", "words"),
    [
        ("size: 1", "# workers:       1, in chunks of 1 item, with its modules imported ahead"),
        ("isolation: item", "#                a fresh one for each item"),
        (
            "recycle: {items: 9, age: 2h, gpu_growth: null, host_growth: null}",
            "#                a worker is replaced after 9 items, or after 2h",
        ),
        (
            "recycle: {gpu_growth: null, host_growth: null}",
            "#                a worker is kept to the end",
        ),
    ],
)
def test_a_plan_says_in_words_how_workers_live(load: Load, chunks: str, words: str) -> None:
    """Each choice of `chunks` has its sentence."""
    assert words in plan(load(f"{LEAST}chunks: {{{chunks}}}")).splitlines()


@pytest.mark.parametrize("warm", ["false", "[]"])
def test_a_plan_says_that_workers_are_cold(load: Load, warm: str) -> None:
    """So that nobody wonders why each takes its time."""
    assert ", each started from nothing" in plan(load(f"{LEAST}warm: {warm}"))


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ('map: {entry: "p:f", items: item.txt}', "map.items: there is no", "did you mean"),
        ('map: {entry: "p:f", items: photos/}', "is a folder", "such as photos/*"),
        ('gradcam: {model: net.pt, images: "*"}', "gradcam.model: there is no", "relative to cwd"),
        ('gradcam: {model: "p:f", images: "*", weights: photos}', "is a folder", "name a file"),
        ('gradcam: {model: "p:f", images: "*", labels: l}', "gradcam.labels: there is no", ""),
    ],
)
def test_a_missing_file_is_told_before_anything_starts(
    tmp_path: Path, load: Load, text: str, message: str, hint: str
) -> None:
    """Each points at its line; what is a pattern or a function is not looked for."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "items.txt").touch()

    (problem,) = check_world(load(f"name: a\n{text}\n"))

    assert message in problem.message
    assert hint in problem.hint
    assert problem.line == 2


@pytest.mark.parametrize("items", ["none/*.jpg", "pkg:items", "items.txt", "photo[0-9].jpg"])
def test_items_are_not_read_beforehand(tmp_path: Path, load: Load, items: str) -> None:
    """A pattern that matches nothing yet is no problem of the job file."""
    (tmp_path / "items.txt").touch()

    assert not check_world(load(f'name: a\nmap: {{entry: "p:f", items: "{items}"}}\n'))


@pytest.mark.parametrize(
    ("poison", "then"), [("fail", "the end of the job"), ("quarantine", "set aside for a person")]
)
def test_a_plan_says_what_becomes_of_poison(load: Load, poison: str, then: str) -> None:
    """Nobody has to find out by an item that kills."""
    (line,) = [
        line
        for line in plan(load(f"{LEAST}chunks: {{poison: {poison}}}")).splitlines()
        if line.startswith("# an item:")
    ]

    assert line.endswith(f"failing again, it is {then}")
