"""`supervise explain` of a hang: where the worker stood, and which files tell more."""

import json
from typing import Any

Supervise = Any


def test_the_files_of_a_hang_are_named(three_faults: Any, supervise: Supervise) -> None:
    """Those that were written are named under their attempt, for people and as JSON."""
    folder = three_faults.attempt(2)
    folder.hang.mkdir()
    folder.processes.write_text("PID\n")
    folder.tail.write_text("step 300\n")

    told = supervise("explain", "digits", "--attempt", "2").output
    document = json.loads(supervise("explain", "digits", "--json").stdout)

    lines = [line.strip() for line in told.splitlines()]
    assert f"also      {folder.processes}" in lines
    assert str(folder.tail) in lines
    assert str(folder.gpu) not in told
    assert document["attempts"][1]["hang"] == [str(folder.processes), str(folder.tail)]
    assert document["attempts"][0]["hang"] == []
