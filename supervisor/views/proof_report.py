"""What a worker's own report of its error adds to the evidence, in words.

Owns the telling. The kind is not told: it is the cause.
"""

from typing import Any

Raw = dict[str, Any]

MOST_CHARACTERS = 600  # of one detail


def error(raw: Raw) -> str | None:
    """What it died of."""
    report = raw.get("report")
    if not report:
        return None
    at = "" if report.get("step") is None else f" at step {report['step']}"
    rank = f" of rank {report['rank']}" if report.get("rank") else ""
    kind = report["type_name"]
    name = "" if kind.startswith("workers.") else f"{kind}: "
    line = report["message"].strip().partition("\n")[0]
    return f"its own report{rank}{at}: {name}{line}"


def details(raw: Raw) -> str | None:
    """The facts that it added."""
    report = raw.get("report") or {}
    told = [f"{name} {_short(text)}" for name, text in report.get("details") or ()]
    return f"it adds: {'; '.join(told)}" if told else None


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MOST_CHARACTERS else line[:MOST_CHARACTERS] + " …"
