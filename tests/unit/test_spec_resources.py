from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.spec.compare import differences
from supervisor.spec.job import JobSpec
from supervisor.spec.load import load_job
from supervisor.spec.problems import SpecError

LEAST = "name: a\ncommand: [x]\n"
GIB = 1024**3
Load = Callable[..., JobSpec]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Load a job file that begins with a name and a command."""

    def load(text: str, **given: str) -> JobSpec:
        path = tmp_path / "job.yaml"
        path.write_text(LEAST + text)
        return load_job(path, given)

    return load


def told(load: Load, text: str, **given: str) -> list[tuple[int, int, str]]:
    """Return line, column and message of every problem of a refused file."""
    with pytest.raises(SpecError) as caught:
        load(text, **given)
    return [(each.line, each.column, each.message) for each in caught.value.problems]


def test_a_job_that_asks_for_nothing_is_limited_in_nothing(load: Load) -> None:
    """Only core dumps are off, as each is as large as the process was."""
    assert load("").resources.model_dump(by_alias=True) == {
        "gpus": 0,
        "gpu_memory": None,
        "gpu_memory_soft": None,
        "share_gpu": False,
        "memory": None,
        "cpus": None,
        "pids": None,
        "open_files": None,
        "core_dumps": False,
    }
    assert load("resources: {}") == load("")


def test_params_fill_in_resources(load: Load) -> None:
    """Counts, sizes and flags may come from `-p`, and are related to each other as such."""
    text = (
        "params: {n: 1, room: 20, shared: {type: bool, default: false}, cap: {type: int}}\n"
        'resources: {gpus: "${n}", gpu_memory: "${room}GiB", share_gpu: "${shared}",\n'
        '  gpu_memory_soft: 18GiB, memory: "${cap}", pids: "${cap}"}\n'
    )

    found = load(text, n="2", shared="true", cap="2097152").resources

    assert (found.gpus, found.gpu_memory_bytes, found.share_gpu) == (2, 20 * GIB, True)
    assert (found.memory_bytes, found.pids) == (2**21, 2**21)
    assert [message for _, _, message in told(load, text, n="0", room="18", cap="5000000")] == [
        "resources.gpu_memory needs a GPU, and the job asks for none",
        "resources.gpu_memory_soft needs a GPU, and the job asks for none",
        "resources: 'gpu_memory_soft' is not smaller than 'gpu_memory'",
        "resources.pids: 5000000 is out of bounds",
    ]


@pytest.mark.parametrize(
    ("key", "least", "most"),
    [
        ("gpus", 0, 64),
        ("cpus", 1, 4096),
        ("pids", 1, 4_194_304),
        ("open_files", 16, 1_073_741_816),
    ],
)
def test_counts_have_bounds(load: Load, key: str, least: int, most: int) -> None:
    """Both ends are allowed, and nothing beyond."""
    for count in (least, most):
        assert getattr(load(f"resources: {{{key}: {count}}}").resources, key) == count
    for count in (least - 1, most + 1):
        message = f"resources.{key}: {count} is out of bounds"
        assert told(load, f"resources: {{{key}: {count}}}") == [(3, 15 + len(key), message)]


@pytest.mark.parametrize("key", ["gpu_memory", "gpu_memory_soft", "memory"])
def test_a_size_too_small_for_any_worker_is_a_slip(load: Load, key: str) -> None:
    """Nought and a number without its unit never become a limit."""
    column = 24 + len(key)

    assert getattr(load(f"resources: {{gpus: 1, {key}: 1MiB}}").resources, f"{key}_bytes") == 2**20
    for size, message in (
        ("0", "zero makes no sense here"),
        ("0GiB", "zero makes no sense here"),
        ("32", "32B is less than any worker needs"),
        ("1048575", "1048575B is less than any worker needs"),
    ):
        problem = (3, column, f"resources.{key}: {message}")
        assert told(load, f"resources: {{gpus: 1, {key}: {size}}}") == [problem]


@pytest.mark.parametrize(
    "text",
    [
        "resources: {share_gpu: false}",
        "resources: {gpus: 1, gpu_memory_soft: 8GiB}",
        "resources: {gpus: 1, gpu_memory: 8GiB, gpu_memory_soft: 8191MiB}",
        "resources: {gpus: 0}\nenv: {CUDA_VISIBLE_DEVICES: 1}",
        "resources: {cpus: 4}\nenv: {CUDA_VISIBLE_DEVICES: 1}",
        "resources: {gpus: 1}\nenv: {CUDA_LAUNCH_BLOCKING: 1}",
        "resources: {gpus: 1}\nrestart: {on: {hang: retry_other_gpu}}",
        "liveness: [gpu, output]",
        "liveness: [heartbeat, cpu]",
        'liveness: [cpu, checkpoint]\ncheckpoint: {glob: "*"}\nresume: {mode: inplace}',
    ],
)
def test_what_goes_together_is_accepted(load: Load, text: str) -> None:
    """The relations refuse contradictions and nothing else."""
    assert load(text)


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("resources: 3", ["resources: 3 where a mapping belongs"]),
        (
            "resources: 3\nrestart: {on: {hang: retry_other_gpu}}",
            ["resources: 3 where a mapping belongs"],
        ),
        (
            "resources: {gpus: many, share_gpu: true, gpu_memory: 8GiB}",
            ["resources.gpus: 'many' where a whole number belongs"],
        ),
        (
            "resources: {gpus: -1, gpu_memory: 8GiB}",
            ["resources.gpus: -1 is out of bounds"],
        ),
        (
            "resources: {gpus: false, gpu_memory: 8GiB}",
            ["resources.gpus: false where a whole number belongs"],
        ),
        (
            "resources: {gpus: 1, gpu_memory: 8G, gpu_memory_soft: 9GiB}",
            ["resources.gpu_memory: '8G' is not a size"],
        ),
        (
            "liveness: [gpuu, cpu]",
            ["liveness[0]: 'gpuu' is not one of heartbeat, output, checkpoint, gpu, cpu"],
        ),
    ],
)
def test_one_slip_is_one_problem(load: Load, text: str, messages: list[str]) -> None:
    """Where a value cannot be read, nothing is concluded from it."""
    assert [message for _, _, message in told(load, text)] == messages


def test_changed_resources_are_told_as_every_change_is(load: Load) -> None:
    """Whoever continues a job sees what it will be allowed now, with units."""
    old = load("resources: {gpus: 1, memory: 32GiB}")
    new = load("resources: {gpus: 2, gpu_memory: 20GiB, memory: 48GiB, core_dumps: true}")

    assert differences(old, new) == [
        "  resources.gpus: 1 -> 2",
        "  resources.gpu_memory: null -> 20GiB",
        "  resources.memory: 32GiB -> 48GiB",
        "  resources.core_dumps: false -> true",
    ]


@pytest.mark.parametrize("text", ["auto", '"auto"', '"${beat}"'])
def test_a_heartbeat_may_be_learned(load: Load, text: str) -> None:
    """`auto` is the value itself; what it comes to is the watcher's to learn."""
    spec = load(f"params: {{beat: auto}}\ntimeouts: {{heartbeat: {text}}}")

    assert spec.timeouts.heartbeat_s == "auto"
    assert type(spec.timeouts.heartbeat_s) is str


def test_a_heartbeat_may_be_given(load: Load) -> None:
    """A duration stays a number of seconds."""
    assert load("timeouts: {heartbeat: 90s}").timeouts.heartbeat_s == 90.0
    assert load("timeouts: {heartbeat: 45}").timeouts.heartbeat_s == 45.0
