"""ARCHITECTURE.md says what the code does."""

import re

import pytest

from docs.state_diagram import BEGIN, DOCUMENT, END, current, diagram, with_diagram
from supervisor.core.causes import State
from supervisor.core.events import BackoffElapsed, StopRequested

ROOT = DOCUMENT.parent
TEXT = DOCUMENT.read_text(encoding="utf-8")


def test_the_state_diagram_is_current() -> None:
    """It is drawn from the table of transitions; if not: python -m docs.state_diagram."""
    assert with_diagram(TEXT, current()) == TEXT


def test_a_diagram_has_an_arrow_for_each_pair_of_states() -> None:
    """Events that lead the same way share an arrow, and staying is not drawn."""
    table = {
        (State.QUEUED, StopRequested): (State.QUEUED, State.STOPPED),
        (State.QUEUED, BackoffElapsed): (State.STOPPED,),
    }
    assert diagram(table).splitlines() == [
        "```mermaid",
        "stateDiagram-v2",
        "    [*] --> queued",
        "    queued --> stopped: StopRequested, BackoffElapsed",
        "```",
    ]


def test_a_document_without_its_markers_is_refused() -> None:
    """Nothing is written where nobody said so."""
    for text in ("", BEGIN, END, f"{END} {BEGIN}"):
        with pytest.raises(ValueError, match="markers are missing"):
            with_diagram(text, "drawn")


def test_every_path_that_it_names_exists() -> None:
    """A file that was moved or renamed is moved or renamed in the map too."""
    named = re.findall(r"`((?:supervisor|workers|tests|examples|benchmarks)/[\w./]*)`", TEXT)
    assert len(named) > 20
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_package_is_on_the_map() -> None:
    """No folder of code is left unexplained."""
    found = [ROOT / "workers", *(ROOT / "supervisor").iterdir()]
    packages = [path.relative_to(ROOT) for path in found if (path / "__init__.py").exists()]
    assert len(packages) > 7
    assert [path for path in packages if f"| `{path}/` |" not in TEXT] == []
