import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCUMENT = Path(__file__).parents[2] / "docs" / "isolated-child.md"
PROGRAMS = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)


def test_the_document_has_both_forms() -> None:
    """The two examples are there to be run."""
    assert ["isolated_child(" in program for program in PROGRAMS] == [True, False]


@pytest.mark.parametrize("program", PROGRAMS, ids=["child", "process"])
def test_an_example_prints_what_it_says(program: str, tmp_path: Path) -> None:
    """Each example of the document runs as it stands and prints what its comments promise."""
    (tmp_path / "example.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", "example.py"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    promised = re.findall(r"print\(.*\)  # (.*)", program)
    printed = done.stdout.splitlines()
    assert len(printed) == len(promised)
    for line, promise in zip(printed, promised, strict=True):
        assert line.startswith(promise.removesuffix("..."))
