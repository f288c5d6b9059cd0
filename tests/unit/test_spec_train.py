import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from supervisor.spec.compare import differences
from supervisor.spec.frozen import freeze, thaw
from supervisor.spec.job import JobSpec
from supervisor.spec.launch import (
    Launch,
    ResumePoint,
    first_launch,
    resume_launch,
)
from supervisor.spec.load import load_job
from supervisor.spec.paths import resolve
from supervisor.spec.plan import plan
from supervisor.spec.problems import SpecError
from supervisor.spec.train import train_of
from supervisor.spec.train_semantics import LONGEST_ARGUMENTS
from supervisor.spec.world import check_world
from workers.protocol import WORKERS_FILE

LEAST = 'name: a\ntrain: {entry: "pkg:build", epochs: 3}\n'
POINT = ResumePoint(Path("/c/step-000000007"), 7)
Load = Callable[..., JobSpec]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Load a job file with this text."""

    def load(text: str, **given: str) -> JobSpec:
        path = tmp_path / "job.yaml"
        path.write_text(text)
        return load_job(path, given)

    return load


def train(fields: str, rest: str = "") -> str:
    """Write a job of three epochs with more fields."""
    return f'name: a\ntrain: {{entry: "pkg:build", epochs: 3, {fields}}}\n{rest}'


def told(load: Load, text: str) -> list[str]:
    """Return the messages of a refused file."""
    with pytest.raises(SpecError) as caught:
        load(text)
    return [problem.message for problem in caught.value.problems]


def planned(load: Load, text: str, **given: str) -> dict[str, Any]:
    """Return the plan that the worker of a job gets."""
    found = train_of(load(text, **given))
    assert found is not None
    fields: dict[str, Any] = json.loads(found.to_json())
    return fields


def test_an_entry_and_its_epochs_are_a_useful_job(load: Load, tmp_path: Path) -> None:
    """Checkpoints, resuming, signs of progress, warmth and done follow from them."""
    spec = load(LEAST)

    assert spec.checkpoint is not None
    assert (spec.checkpoint.preset, spec.checkpoint.dir) == ("session", "out/checkpoints")
    assert (spec.checkpoint.glob, spec.checkpoint.require) == ("step-*", ("manifest.json",))
    assert (spec.resume.mode, spec.resume.env) == ("env", {"SUPERVISE_RESUME_PATH": "{path}"})
    assert spec.liveness == ("heartbeat", "checkpoint", "gpu", "cpu")
    assert (spec.warm, spec.done.exit, spec.command) == (True, 0, None)
    assert resolve(spec).checkpoints == tmp_path / "out" / "checkpoints"


def test_what_the_file_says_counts(load: Load) -> None:
    """What is implied gives way to the user's own signs and warmth."""
    spec = load(LEAST + "liveness: [output]\nwarm: false\n")

    assert (spec.liveness, spec.warm) == (("output",), False)


@pytest.mark.parametrize("folder", ["runs/a", "runs/a/", "/data/run", "~/run", "."])
def test_checkpoints_lie_below_out(load: Load, folder: str) -> None:
    """Wherever that is."""
    spec = load(train(f"out: {folder}"))

    found = train_of(spec)
    assert found is not None
    assert found.out.is_absolute()
    assert resolve(spec).checkpoints == found.out / "checkpoints"


@pytest.mark.parametrize(
    ("save", "every_s"),
    [
        ("{}", 300.0),
        ("{steps: 10}", None),
        ("{steps: 10, every: 1m}", 60.0),
        ("{steps: null}", 300.0),
    ],
)
def test_saving_by_steps_replaces_saving_by_time(
    load: Load, save: str, every_s: float | None
) -> None:
    """Unless both are given; who names neither gets every five minutes."""
    assert planned(load, train(f"save: {save}"))["save"]["every_s"] == every_s


def test_a_command_has_no_training_plan(load: Load) -> None:
    """No other job is taken for one."""
    assert train_of(load("name: a\ncommand: [x]\n")) is None


def test_the_worker_is_our_file_in_the_jobs_interpreter(load: Load) -> None:
    """Our own Python by its path, where no environment is activated."""
    spec = load(LEAST)
    found = train_of(spec)
    assert found is not None

    launch = first_launch(spec, {})

    assert launch == Launch((sys.executable, WORKERS_FILE, "train", found.to_json()))
    assert Path(WORKERS_FILE).is_file()


@pytest.mark.parametrize(
    ("own", "environ", "python"),
    [
        ("", {"VIRTUAL_ENV": "/venv"}, "python"),
        ("", {"CONDA_PREFIX": "/conda"}, "python"),
        ("python: /opt/bin/python3.9\n", {"VIRTUAL_ENV": "/venv"}, "/opt/bin/python3.9"),
        ("python: pypy\n", {}, "pypy"),
    ],
)
def test_the_jobs_own_interpreter_comes_first(
    load: Load, own: str, environ: dict[str, str], python: str
) -> None:
    """Then that of the activated environment, by the name that its PATH knows."""
    assert first_launch(load(LEAST + own), environ).argv[0] == python


def test_several_processes_are_started_by_torchrun(load: Load) -> None:
    """One that fails ends them all, and starting again is not torchrun's business."""
    launch = first_launch(load(train("processes: 2")), {})

    words = " ".join(launch.argv[1:-3])
    assert words == "-m torch.distributed.run --standalone --nproc-per-node 2 --max-restarts 0"
    assert launch.argv[-3:-1] == (WORKERS_FILE, "train")
    assert launch.env == {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize(
    ("rest", "environ"), [("env: {OMP_NUM_THREADS: 4}\n", {}), ("", {"OMP_NUM_THREADS": "4"})]
)
def test_threads_that_somebody_chose_stay(load: Load, rest: str, environ: dict[str, str]) -> None:
    """In the job file or in the environment."""
    assert "OMP_NUM_THREADS" not in first_launch(load(train("processes: 2", rest)), environ).env


@pytest.mark.parametrize("processes", [1, 2])
def test_a_restart_is_the_same_command_with_a_checkpoint(load: Load, processes: int) -> None:
    """The worker reads from its environment where to go on."""
    spec = load(train(f"processes: {processes}"))
    first = first_launch(spec, {})

    resumed = resume_launch(spec, POINT, {})

    assert resumed.argv == first.argv
    assert resumed.env == {**first.env, "SUPERVISE_RESUME_PATH": str(POINT.path)}


@pytest.mark.parametrize(
    "rest",
    [
        "checkpoint: {}",
        "checkpoint: {preset: session, dir: out/checkpoints, glob: step-*, keep: null}",
        "resume: {mode: env}",
        'resume: {env: {SUPERVISE_RESUME_PATH: "{path}"}}',
        "progress: {parse: auto, pattern: null}",
        "done: {exit: 0}",
        "resources: {gpus: 1}",
        "resources: {gpus: 0}",
    ],
)
def test_saying_what_is_implied_is_no_contradiction(load: Load, rest: str) -> None:
    """So that the printed plan of a job can be saved and run."""
    text = train("processes: 1, save: {mode: max}, schedule: {factor: 0.1, floor: 0}", rest)

    assert not differences(load(LEAST), load(text.replace("{gpus: 1}", "{gpus: 0}")))
    assert load(text)


@pytest.mark.parametrize(
    "fields",
    [
        "processes: 1",
        "schedule: {warmup: 5000}, profile: {start: 900000}",
        "save: {every: null, steps: 5}",
        "save: {best: loss, mode: min}",
        "loader: {workers: 2, prefetch: 9}",
        "snapshot: 500ms",
        "snapshot: null",
        "profile: null",
    ],
)
def test_what_goes_together_is_accepted(load: Load, fields: str) -> None:
    """The relations refuse contradictions and nothing else; how long epochs are is not known."""
    assert load(train(fields))


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        (
            train("checkpoint: {}", "checkpoint: {keep: 3}"),
            [
                "unknown key 'checkpoint' in train",
                "checkpoint: the built-in trainer writes and finds its own checkpoints",
            ],
        ),
        (
            train("", "resume: {env: {MORE: 1}}"),
            ["resume: the built-in trainer resumes by itself"],
        ),
        (train("", "resume: {mode: none}"), ["resume: the built-in trainer resumes by itself"]),
        (train("", "checkpoint: [a]"), ["checkpoint: a list where a mapping belongs"]),
        (
            train("processes: many", "resources: {gpus: 2}"),
            ["train.processes: 'many' where a whole number belongs"],
        ),
        (
            train("processes: 2", "resources: {gpus: many}"),
            ["resources.gpus: 'many' where a whole number belongs"],
        ),
        (
            train("schedule: {kind: stp, floor: 0.5}"),
            ["train.schedule.kind: 'stp' is not one of constant, step, cosine"],
        ),
        (
            train("loader: {workers: some, prefetch: 4}"),
            ["train.loader.workers: 'some' where a whole number belongs"],
        ),
        (
            train("args: {x: .nan}"),
            ["train.args: x is not a finite number"],
        ),
        ("name: a\ntrain: 3\n", ["train: 3 where a mapping belongs"]),
        (
            'name: a\ntrain: {entry: "p:f", steps: few, schedule: {warmup: 5}}\n',
            ["train.steps: 'few' where a whole number belongs"],
        ),
    ],
)
def test_one_slip_is_one_problem(load: Load, text: str, messages: list[str]) -> None:
    """Where a value cannot be read, nothing is concluded from it."""
    assert sorted(told(load, text)) == sorted(messages)


def test_arguments_must_fit_on_a_command_line(load: Load) -> None:
    """What the kernel would refuse at each start is refused at once."""
    long = "x" * LONGEST_ARGUMENTS
    (message,) = told(load, train(f"args: {{text: {long}}}"))

    assert message.startswith("train.args: ")
    assert message.endswith("characters do not fit on a command line")


@pytest.mark.parametrize(
    ("precision", "hint"),
    [
        ("float32", "write fp32"),
        ("bfloat16", "write bf16"),
        ("16", "write fp16"),
        ("FP16", "did you mean 'fp16'?"),
        ("tf32", "did you mean 'fp32'?"),
        ("double", "for doubles, build a model of doubles"),
        ("int8", "known here: fp32, bf16, fp16"),
    ],
)
def test_a_precision_of_another_name_is_known(load: Load, precision: str, hint: str) -> None:
    """What other programs call it leads to what it is called here."""
    with pytest.raises(SpecError) as caught:
        load(train(f"precision: {precision}"))

    assert [problem.hint for problem in caught.value.problems] == [hint]


@pytest.mark.parametrize(
    ("device", "hint"),
    [
        ("gpu", "write cuda"),
        ("cuda:1", "write cuda; resources.gpus says how many GPUs, and supervise chooses which"),
        ("cdua", "did you mean 'cuda'?"),
        ("tpu", "did you mean 'cpu'?"),
        ("3", "known here: auto, cpu, cuda"),
    ],
)
def test_a_device_of_another_name_is_known(load: Load, device: str, hint: str) -> None:
    """A number of a GPU is not chosen here."""
    with pytest.raises(SpecError) as caught:
        load(train(f"device: {device}"))

    assert [problem.hint for problem in caught.value.problems] == [hint]


def test_values_may_be_params(load: Load) -> None:
    """Wherever a number, a flag or a word stands."""
    text = (
        "name: a\nparams: {n: 3, p: bf16, on: true, d: cpu, s: 2s}\n"
        'train: {entry: "p:f", steps: "${n}", precision: "${p}", compile: "${on}",\n'
        '  device: "${d}", snapshot: "${s}", loader: {pin: "${on}"}, out: "r${n}"}\n'
    )
    fields = planned(load, text, n="5")

    assert (fields["steps"], fields["precision"], fields["compile"]) == (5, "bf16", True)
    assert (fields["device"], fields["snapshot_s"], fields["loader"]["pin"]) == ("cpu", 2.0, True)
    assert fields["out"].endswith("/r5")


def test_a_thawed_plan_is_the_same_plan(load: Load) -> None:
    """A later runner starts the very same worker."""
    spec = load(train("args: {b: 1, a: 2}"))

    assert first_launch(thaw(freeze(spec)), {}) == first_launch(spec, {})


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ("", "# first attempt: python -m workers train pkg:build"),
        ("", "#                3 epochs, in one process, in fp32"),
        ("processes: 2", "#                3 epochs, in 2 processes, in fp32"),
        ("snapshot: null", "# in memory:     nothing"),
        (
            "snapshot: 7s",
            "# in memory:     a snapshot every 7s; it outlives the worker, not the host",
        ),
        (
            "save: {every: 1m, keep: 1}",
            "# on disk:       a checkpoint every 1m, on a stop and at the end; the newest is kept",
        ),
    ],
)
def test_the_plan_tells_what_happens(load: Load, fields: str, line: str) -> None:
    """In words: nobody is shown the blob that the worker gets."""
    text = plan(load(train(fields)))

    assert line in text.split("\n")
    assert '{"' not in text


def test_a_folder_that_cannot_be_written_is_told_before_anything_starts(
    load: Load, tmp_path: Path
) -> None:
    """A file in its place, or above it; a folder that is yet to be made is fine."""
    (tmp_path / "taken").touch()
    cases = {"out": [], "deep/er": [], "taken": ["taken"], "taken/deeper": ["taken"]}
    for folder, blamed in cases.items():
        problems = check_world(load(train(f"out: {folder}")))

        expected = [f"train.out: {tmp_path / name} is not a folder" for name in blamed]
        assert [problem.message for problem in problems] == expected


def test_a_folder_one_may_not_write_into_is_told(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the folder that is in the way, which may be one above."""
    monkeypatch.setattr("os.access", lambda path, _: Path(path) != tmp_path)  # root may all

    problems = check_world(load(train("out: a/b", f"cwd: {tmp_path}")))

    assert f"train.out: you may not write into {tmp_path}" in [one.message for one in problems]
