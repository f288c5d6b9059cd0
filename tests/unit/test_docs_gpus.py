"""docs/gpus.md is true where it repeats what the code says."""

import re
from pathlib import Path

import pytest

from supervisor.core.gpu import XIDS, Severity
from supervisor.gpu.free import IDLE_BYTES
from supervisor.gpu.gate import SLACK_BYTES
from supervisor.gpu.shared_folder import ENVIRONMENT, IN_RUN, IN_TMP
from supervisor.runner.gpu_watch import CURVE_POINTS, LOOK_S
from supervisor.runner.gpus import CLEAN_S

TEXT = (Path(__file__).parents[2] / "docs/gpus.md").read_text(encoding="utf-8")


def codes_of(row: str) -> set[int]:
    """The codes that the table names for a severity, ranges spelt out."""
    (cell,) = re.findall(rf"^\| {row} \| (.*?) \|", TEXT, re.MULTILINE)
    ends = [(int(low), int(high or low)) for low, high in re.findall(r"(\d+)(?:-(\d+))?", cell)]
    return {code for low, high in ends for code in range(low, high + 1)}


@pytest.mark.parametrize("severity", Severity)
def test_the_table_of_troubles_has_every_code_where_it_belongs(severity: Severity) -> None:
    """A code that moves in the program's table moves here too."""
    assert codes_of(severity) == {code for code, one in XIDS.items() if one.severity is severity}


@pytest.mark.parametrize(
    "said",
    [
        f"no more than {IDLE_BYTES >> 30} GiB in use",
        f"no more than {SLACK_BYTES >> 20} MiB above",
        f"{CLEAN_S:.0f} s at most",
        f"at most {CURVE_POINTS} points",
        f"`{IN_RUN}`",
        f"`{IN_TMP}`",
        f"`{ENVIRONMENT}`",
    ],
)
def test_a_figure_is_the_programs_own(said: str) -> None:
    """Limits and places stand here as the program has them."""
    assert said in TEXT


def test_the_rhythm_of_looking_is_the_programs_own() -> None:
    """In words, as numbers below ten are."""
    assert ("Every two seconds" in TEXT) == (LOOK_S == 2.0)
