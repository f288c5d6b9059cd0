"""Job files and the whole text people see for them.

`UPDATE_GOLDEN=1 pytest tests/unit/test_spec_golden.py` writes the texts anew; read the diff.
"""

import os
from pathlib import Path

import pytest

from supervisor.spec.effective import shown
from supervisor.spec.load import load_job
from supervisor.spec.plan import plan
from supervisor.spec.problems import SpecError

FOLDER = Path(__file__).parents[1] / "golden" / "spec"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
JARGON = ("pydantic", "Input should", "Value error", "validation", "type=", "tuple", "dict", "str_")


def given(name: str) -> dict[str, str]:
    """Read the `-p` values from the first line of a golden job file."""
    first = (FOLDER / f"{name}.yaml").read_text().split("\n")[0]
    words = first.removeprefix("# given:").split() if first.startswith("# given:") else []
    return dict(word.split("=", 1) for word in words)


def rendered(name: str) -> str:
    """Return the plan of a job file, or its problems."""
    try:
        text = plan(load_job(Path(f"{name}.yaml"), given(name)))
    except SpecError as error:
        return f"{error}\n"
    return text.replace(str(FOLDER), "/FOLDER")


@pytest.mark.parametrize("name", NAMES)
def test_a_job_file_gives_its_golden_text(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every message and every plan is exactly what was once read and found good."""
    monkeypatch.chdir(FOLDER)
    actual = rendered(name)
    golden = FOLDER / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(actual)

    assert golden.read_text() == actual


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("bad-")])
def test_a_bad_job_file_is_refused_without_jargon(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No word of the validator's own reaches a person, and every problem has its line."""
    monkeypatch.chdir(FOLDER)

    with pytest.raises(SpecError) as caught:
        load_job(Path(f"{name}.yaml"), given(name))

    assert not [word for word in JARGON if word in str(caught.value)]
    assert all(
        each.line or each.option or len(caught.value.problems) == 1
        for each in caught.value.problems
    )


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("ok-")])
def test_a_plan_is_a_job_file_that_says_the_same(name: str, tmp_path: Path) -> None:
    """What `check` prints can be saved and run: nothing but a secret is abbreviated or lost."""
    spec = load_job(FOLDER / f"{name}.yaml", given(name))
    (tmp_path / "job.yaml").write_text(plan(spec))

    again = load_job(tmp_path / "job.yaml", spec.values)

    # Of an array it is the first job.
    here = {"folder": tmp_path, "source": tmp_path / "job.yaml", "array": {}}
    moved = spec.model_copy(update=here)
    assert shown(moved) == shown(again)
