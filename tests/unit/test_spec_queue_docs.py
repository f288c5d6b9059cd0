"""docs/queue.md is true where it repeats what the code says."""

import re
from pathlib import Path

import pytest

from supervisor.core.secrets import looks_secret
from supervisor.queue.model import PRIORITIES
from supervisor.queue.plan import AGING_S, PATIENCE_S
from supervisor.spec.array_params import MAX_JOBS
from supervisor.spec.arrays import combinations_of_text
from supervisor.spec.queue_sections import LEAST_PRIORITY, MOST_PRIORITY

TEXT = (Path(__file__).parents[2] / "docs/queue.md").read_text(encoding="utf-8")
WORDS = "KEY TOKEN SECRET PASSWORD CREDENTIALS AUTH COOKIE PRIVATE DSN"
INNOCENT = "KEYBOARD MAX_TOKENS XAUTHORITY SSH_AUTH_SOCK A_KEY_FILE A_KEY_PATH A_KEY_DIR A_KEY_SOCK"


def test_the_example_is_a_job_file_of_as_many_jobs_as_it_says() -> None:
    """It can be copied."""
    example = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)[0]
    (count,) = re.findall(r"# (\d+) jobs", example)

    assert len(combinations_of_text(example, Path("job.yaml"))) == int(count)


@pytest.mark.parametrize(
    "said",
    [
        f"({PRIORITIES[0]} to {PRIORITIES[-1]}, 0",
        f"({LEAST_PRIORITY} to {MOST_PRIORITY}, 0",
        f"makes {MAX_JOBS:,} jobs",
    ],
)
def test_a_figure_is_the_programs_own(said: str) -> None:
    """The queue's bounds are those of the job file."""
    assert said in " ".join(TEXT.split())


def test_the_rhythm_of_the_queue_is_the_programs_own() -> None:
    """In words, as it is written there."""
    assert ("every hour" in TEXT) == (AGING_S == 3600)
    assert ("half an hour at most" in TEXT) == (PATIENCE_S == 1800)


@pytest.mark.parametrize("word", WORDS.split())
def test_a_word_of_secrets_is_one(word: str) -> None:
    """Alone and in a name."""
    assert word in TEXT
    assert looks_secret(word)
    assert looks_secret(f"MY_{word}")


@pytest.mark.parametrize("name", INNOCENT.split())
def test_what_is_no_secret_is_none(name: str) -> None:
    """As the page promises."""
    assert not looks_secret(name)
