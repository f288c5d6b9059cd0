import os
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from supervisor.core.causes import Cause
from supervisor.spec.job import JobSpec
from supervisor.spec.load import MAX_FILE_BYTES, load_job
from supervisor.spec.problems import MAX_PROBLEMS, SpecError
from supervisor.spec.translate import translate

LEAST = "name: a\ncommand: [x]\n"
Load = Callable[..., JobSpec]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Load a job file with this text (or these bytes)."""

    def load(text: str | bytes, **given: str) -> JobSpec:
        path = tmp_path / "job.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return load_job(path, given)

    return load


def told(load: Load, text: str | bytes, **given: str) -> list[str]:
    """Return the messages of a refused file."""
    with pytest.raises(SpecError) as caught:
        load(text, **given)
    return [problem.message for problem in caught.value.problems]


def test_name_and_command_are_a_useful_job(load: Load) -> None:
    """Every other field has its documented default."""
    spec = load(LEAST)

    assert spec.command == ("x",)
    assert tuple(spec.timeouts.model_dump().values()) == (600, "auto", 60, None, None, None)
    assert (spec.stop.signals, spec.restart.budget, spec.restart.window_s) == (("TERM",), 5, None)
    assert tuple(spec.restart.backoff.model_dump().values()) == (1, 300, 2, 0.1)
    assert (spec.resume.mode, spec.checkpoint, spec.progress.parse) == ("none", None, "auto")
    assert (spec.done.exit, spec.liveness) == (
        0,
        ("heartbeat", "output", "checkpoint", "gpu", "cpu"),
    )


def test_a_folder_is_the_same_by_every_way_to_it(tmp_path: Path) -> None:
    """By it a job is known again: `run` of the same file continues the same job."""
    (tmp_path / "real").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "real" / "a.yaml").write_text("{name: a, command: [a]}")
    (tmp_path / "real" / "job.yaml").symlink_to("a.yaml")
    for way in ("real", "link", "other/../real", "./link/."):
        spec = load_job(tmp_path / way / "job.yaml", {})
        assert (spec.folder, spec.source.name) == (tmp_path / "real", "job.yaml")


def test_a_spec_is_immutable(load: Load) -> None:
    """What was accepted stays as it is."""
    spec = load(LEAST)

    with pytest.raises(ValueError, match="frozen"):
        spec.name = "b"
    with pytest.raises(ValueError, match="frozen"):
        spec.timeouts.stop_s = 0


def test_numbers_in_a_command_keep_their_spelling(load: Load) -> None:
    """A program gets what was written, not a number printed again."""
    spec = load("name: a\ncommand: [x, 1e-3, 007, 1_0, true, 0x1F, .5]\nenv: {A: 1.50}\n")

    assert spec.command == ("x", "1e-3", "007", "1_0", "true", "0x1F", ".5")
    assert spec.env == {"A": "1.50"}


def test_causes_are_keys_of_the_closed_list(load: Load) -> None:
    """`restart.on` is ready for the policy."""
    spec = load(LEAST + "restart: {on: {cuda_oom: retry_once}}")

    assert spec.restart.on == {Cause.CUDA_OOM: "retry_once"}


@pytest.mark.parametrize(
    ("resume", "mode"),
    [
        ('{argv: [--resume, "{path}"]}', "append"),
        ('{env: {A: "{path}"}}', "env"),
        ('{argv: [--resume], env: {A: "{step}"}}', "append"),
        ("{mode: none}", "none"),
        ("{mode: inplace}", "inplace"),
        ('{mode: replace, argv: [y, "{path}"]}', "replace"),
    ],
)
def test_the_mode_of_resuming_follows_from_the_keys(load: Load, resume: str, mode: str) -> None:
    """What is left out is derived, never guessed as `none`."""
    spec = load(f'{LEAST}checkpoint: {{glob: "*.pt"}}\nresume: {resume}')

    assert mode == spec.resume.mode


@pytest.mark.parametrize(
    "resume", ["", "resume: {}", "resume: null", "resume: {argv: [], env: {}}"]
)
def test_checkpoints_without_a_way_to_resume_are_refused(load: Load, resume: str) -> None:
    """No job starts from zero silently because somebody forgot a line."""
    messages = told(load, f'{LEAST}checkpoint: {{glob: "*.pt"}}\n{resume}')

    assert "there are checkpoints, and nothing says how to resume from one" in messages


@pytest.mark.parametrize(
    ("own", "argv", "env"),
    [
        ("", ("--resume",), {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}),
        ("resume: {argv: [-r]}", ("-r",), {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}),
        (
            "resume: {env: {A: b}}",
            ("--resume",),
            {"A": "b", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"},
        ),
        ("resume: {env: {TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD: 0}}", ("--resume",), None),
    ],
)
def test_own_keys_win_over_a_preset_key_by_key(
    load: Load, own: str, argv: tuple[str, ...], env: dict[str, str] | None
) -> None:
    """One key of the user's never takes the others of the preset away."""
    spec = load(f"{LEAST}checkpoint: {{preset: mmengine}}\n{own}")

    assert ("inplace", argv) == (spec.resume.mode, spec.resume.argv)
    assert (env or {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "0"}) == spec.resume.env


def test_another_mode_than_the_presets_drops_its_resume_keys(load: Load) -> None:
    """Arguments of one mode are not carried into another."""
    spec = load(f"{LEAST}checkpoint: {{preset: hf, keep: 2}}\nresume: {{mode: none}}")

    assert (spec.resume.mode, spec.resume.argv) == ("none", ())
    assert spec.checkpoint is not None
    assert (spec.checkpoint.glob, spec.checkpoint.keep) == ("checkpoint-*", 2)


def test_params_are_put_in_everywhere_as_text(load: Load) -> None:
    """Command, env, paths, resume and numbers; floats with the digits somebody wrote."""
    text = """
name: a
params: {lr: {type: float, default: 1e-3}, steps: 10, run: r1, tag: {type: str, default: "{x}"}}
command: [x, "--lr=${lr}", "$${lr}", "$lr", "$$${lr}"]
cwd: /tmp/${run}
env: {LR: "${lr}"}
checkpoint: {glob: "${run}-*.pt", dir: "out/${run}", keep: "${steps}"}
resume: {argv: ["{path}", "--tag=${tag}"]}
done: {step: "${steps}", file: "${run}.done"}
timeouts: {stop: "${steps}s"}
"""
    spec = load(text, lr="5.0E-4", steps="7")

    assert spec.command == ("x", "--lr=5.0E-4", "${lr}", "$lr", "$${lr}")
    assert (spec.cwd, spec.env) == ("/tmp/r1", {"LR": "5.0E-4"})
    assert spec.checkpoint is not None
    assert (
        spec.checkpoint.glob,
        spec.checkpoint.dir,
        spec.checkpoint.keep,
    ) == ("r1-*.pt", "out/r1", 7)
    assert spec.resume.argv == ("{path}", "--tag={{x}}")
    assert (spec.done.step, spec.done.file, spec.timeouts.stop_s) == (7, "r1.done", 7.0)
    assert spec.values == {"lr": "5.0E-4", "steps": "7", "run": "r1", "tag": "{x}"}


def test_what_a_param_holds_is_not_read_again(load: Load) -> None:
    """A value with `${...}` in it stays as given."""
    spec = load('name: a\nparams: {a: "", b: secret}\ncommand: [x, "${a}"]', a="${b}")

    assert spec.command == ("x", "${b}")


@pytest.mark.parametrize(
    ("declared", "value", "message"),
    [
        ("float", "0,1", "'0,1' is not a float"),
        ("float", "nan", "'nan' is not a float"),
        ("float", "1e999", "'1e999' is not a float"),
        ("int", "1.0", "'1.0' is not an int"),
        ("int", "1_0", "'1_0' is not an int"),
        ("int", "", "'' is not an int"),
        ("bool", "yes", "'yes' is not a bool"),
        ("str", "a\0b", r"'a\x00b' cannot be handed to a program"),
        ("float, min: 0", "-1e-9", "-1e-9 is below the least, 0"),
        ("int, max: 5", "6", "6 is above the most, 5"),
        ("int, choices: [1, 2]", "3", "'3' is not one of the choices"),
    ],
)
def test_a_value_that_is_not_of_its_type_is_refused(
    load: Load, declared: str, value: str, message: str
) -> None:
    """Each -p is checked against its declaration, and the option is named."""
    with pytest.raises(SpecError) as caught:
        load(f"{LEAST}params:\n  v: {{type: {declared}}}\n", v=value)

    (problem,) = caught.value.problems
    assert (message, f"v={value}", 4) == (problem.message, problem.option, problem.line)


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        ("float", "1"),
        ("float, choices: [0.1]", "0.10"),
        ("float, min: 0, max: 1", "0"),
        ("float, min: 0, max: 1", "1"),
        ("bool", "True"),
        ("int", "-3"),
        ("str", ""),
    ],
)
def test_a_value_of_its_type_is_taken_as_written(load: Load, declared: str, value: str) -> None:
    """The text reaches the program unchanged."""
    assert load(f"{LEAST}params: {{v: {{type: {declared}}}}}", v=value).values == {"v": value}


def test_a_params_flood_is_refused(load: Load) -> None:
    """A few bytes cannot be blown up to gigabytes."""
    text = 'name: a\nparams: {a: ""}\ncommand: [x, "' + "${a}" * 1000 + '"]'

    assert told(load, text, a="b" * 1000) == [
        "the params in this text are 1000000 characters together"
    ]


@pytest.mark.parametrize("name", ["hf", "detectron2", "mmengine", "cornernet", "dcp", "session"])
def test_every_preset_is_a_complete_job(load: Load, name: str) -> None:
    """A preset alone says where the checkpoints are and how to resume."""
    spec = load(f"{LEAST}checkpoint: {{preset: {name}}}")

    assert spec.checkpoint is not None
    assert spec.checkpoint.step is not None
    assert spec.resume.mode != "none"


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """A missing file, a directory, a pipe, a strange name: a sentence each, and no waiting."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "train.yaml").touch()
    cases = {
        tmp_path / "missing.yaml": "there is no such file",
        tmp_path: "this is a directory",
        tmp_path / "pipe": "this is not a regular file",
        tmp_path / "train.yaml" / "x": "cannot be opened: Not a directory",
        Path("/proc/self/mem"): "cannot be read: Input/output error",
        Path("a\0b"): "cannot be opened: its name is not a path",
    }
    for path, message in cases.items():
        with pytest.raises(SpecError) as caught:
            load_job(path)
        (problem,) = caught.value.problems
        assert message == problem.message

    with pytest.raises(SpecError, match=r"there is: train\.yaml"):
        load_job(tmp_path / "missing.yaml")


def test_an_error_of_a_kind_nobody_foresaw_is_told_too() -> None:
    """A validator that learns new complaints does not bring tracebacks or its jargon."""
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(Mapping[str, date]).validate_python({"cwd": "tomorrow"})

    (finding,) = translate(caught.value, {"cwd": "tomorrow"})

    assert finding.message == "cwd: 'tomorrow' does not belong here"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_one_may_not_read_is_refused(tmp_path: Path) -> None:
    """Permission is named as the cause."""
    path = tmp_path / "job.yaml"
    path.touch(mode=0)

    with pytest.raises(SpecError, match="you may not read this file"):
        load_job(path)


HOSTILE = {
    "not UTF-8": (b"name: caf\xe9\n", "byte 0xe9 on line 1 is not UTF-8 text"),
    "UTF-16": ("name: a".encode("utf-16"), "byte 0xff on line 1 is not UTF-8 text"),
    "control": (b"name: a\x01\n", "character U+0001 is not allowed in YAML"),
    "huge": (b"#" * (MAX_FILE_BYTES + 1), "larger than 1 MiB, which no job file is"),
    "deep": (b"[" * 100_000, "nested more than 32 levels deep"),
    "deep block": (b"- " * 100_000, "nested more than 32 levels deep"),
    "many": (b"a: [" + b"1," * 20_000, "more than 10000 values, counting what aliases repeat"),
    "bomb": (
        b"a: &a [x,x,x,x,x,x,x,x,x,x]\n"
        + b"".join(
            b"%c: &%c [%s]\n" % (c, c, b",".join([b"*%c" % (c - 1)] * 10)) for c in range(98, 108)
        ),
        "more than 10000 values, counting what aliases repeat",
    ),
    "deep by aliases": (
        b"a0: &a0 [x]\n" + b"".join(b"a%d: &a%d [*a%d]\n" % (i, i, i - 1) for i in range(1, 40)),
        "nested more than 32 levels deep",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_politely(load: Load, name: str) -> None:
    """Bombs, abysses and rubbish end in one sentence, not in a traceback or a full memory."""
    content, message = HOSTILE[name]

    assert message in told(load, content)


def test_no_more_problems_than_anybody_reads(load: Load) -> None:
    """Thousands of problems are counted, not listed."""
    messages = told(load, LEAST + "".join(f"key{i}: 1\n" for i in range(1000)))

    assert len(messages) == MAX_PROBLEMS + 1
    assert messages[-1] == "and 900 more problems"


def test_nothing_in_a_file_reaches_the_terminal_as_a_command(load: Load) -> None:
    """Escapes of the file's are shown, not obeyed."""
    with pytest.raises(SpecError) as caught:
        load(
            'name: "\\e[31m"\n"\\e[2J\\a": "\\e]0;title\\a"\ncommand: [x, "\u202eabc", {}]\n',
            **{"\x1b[2J": "\x1b[31m"},
        )

    assert all(char == "\n" or char.isprintable() for char in str(caught.value))


def test_problems_come_as_data_too(load: Load) -> None:
    """The JSON form has position, text and hint of each problem."""
    with pytest.raises(SpecError) as caught:
        load(LEAST + "tmieouts: {}\n")

    (problem,) = caught.value.as_json()
    assert {
        "file": problem["file"],
        "message": "unknown key 'tmieouts'",
        "hint": "did you mean 'timeouts'?",
        "line": 3,
        "column": 1,
        "width": 8,
        "excerpt": "tmieouts: {}",
        "mark": 1,
        "option": "",
    } == problem


def test_what_other_programs_write_is_fine(load: Load) -> None:
    """Byte order marks, Windows lines, and JSON's escapes for what is beyond U+FFFF."""
    with pytest.raises(SpecError) as caught:
        load(b"\xef\xbb\xbfnmae: a\r\ncommand: [x]\r\n")

    (problem,) = caught.value.problems
    assert (problem.column, problem.excerpt) == (1, "nmae: a")
    assert load('name: a\ncommand: ["\\ud83d\\ude80"]').command == ("\U0001f680",)
    assert load(LEAST) == load(b"\xef\xbb\xbf" + LEAST.replace("\n", "\r\n").encode())


def test_a_default_beside_bad_choices_is_told_and_no_crash(load: Load) -> None:
    """The choices are wrong; whether the default is one of them shows when they are right."""
    text = LEAST + "params: {n: {type: int, choices: [many, 3], default: 3}}"

    assert told(load, text) == ["params.n.choices[0]: 'many' is not an int"]
    assert told(load, text, n="4") == [
        "'4' is not one of the choices",
        "params.n.choices[0]: 'many' is not an int",
    ]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (f"key: {'k' * 257}\n", "key: a key of 257 characters"),
        (f"group: {'g' * 65}\n", f"group: '{'g' * 56}... cannot name a group"),
        ("after: [[a]]\n", "after[0]: a list where text belongs"),
        ("after: [é]\n", "after[0]: 'é' is no job's name or id"),
        ("priority: 1.5\n", "priority: 1.5 where a whole number belongs"),
        ("array: ~\n", "array: null where a mapping belongs"),
    ],
)
def test_what_the_queue_cannot_take_is_told_at_once(load: Load, more: str, message: str) -> None:
    """Before a daemon hears of it."""
    assert told(load, LEAST + more) == [message]


def test_what_is_said_to_the_queue_may_hold_params(load: Load) -> None:
    """A number stays a number, and a word that looks like one a word."""
    said = "priority: ${p}\nkey: k-${p}\ngroup: 7\nafter: [007]\nparams: {p: 3}\n"
    spec = load(LEAST + said, p="5")

    assert (spec.priority, spec.key, spec.group, spec.after) == (5, "k-5", "7", ("007",))
