"""`supervise daemon status`: whether a daemon runs, and how it is.

Owns the verb. It is what a script asks before it relies on the daemon, so its exit code tells.
"""

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from supervisor.client.errors import DaemonGone, NoDaemon
from supervisor.client.find import Found, find_daemon
from supervisor.runner.exits import Exit

LATE_S = 0.5  # an event loop that is later than this keeps people waiting


@click.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print JSON (docs/json.md).")
@click.pass_obj
def command(state_dir: Path, *, as_json: bool) -> None:
    """Tell whether a daemon runs: version, process, jobs, and how late its event loop is.

    Exit codes: 0 it runs, 3 it does not run, or does not answer.
    """
    from supervisor.client.calls import Daemon  # noqa: PLC0415 - not where no daemon runs

    try:
        found = find_daemon(state_dir)
        with found.connection as connection:
            told = Daemon(connection).status()
    except (NoDaemon, DaemonGone) as error:
        if as_json:
            _print_json({"running": False, "why": str(error)})
        else:
            click.echo(str(error))
        raise click.exceptions.Exit(Exit.HOLDING) from error
    where = {"running": True, "socket": None if found.socket is None else str(found.socket)}
    if as_json:
        _print_json(where | told)
    else:
        click.echo("\n".join(_lines(found, told)))


def _lines(found: Found, told: dict[str, Any]) -> list[str]:
    whose = "of this host" if told.get("system") else "yours"
    rows = [
        ("daemon", f"running, {whose}: version {told.get('version')}, process {told.get('pid')}"),
        ("since", _since(told.get("started_s"))),
        ("socket", str(found.socket or found.connection.where)),
        ("state", str(told.get("state_dir"))),
        ("launcher", str(told.get("launcher"))),
        ("jobs", ", ".join(f"{count} {phase}" for phase, count in _jobs(told).items())),
        ("lag", _lag(told.get("lag_s"), told.get("worst_lag_s"))),
    ]
    return [f"{label:<9} {words}" for label, words in rows]


def _jobs(told: dict[str, Any]) -> dict[str, int]:
    found = told.get("jobs")
    return found if isinstance(found, dict) else {}


def _since(started_s: float | None) -> str:
    if started_s is None:
        return "unknown"
    began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(started_s))
    return f"{began}, for {timedelta(seconds=max(0, round(time.time() - started_s)))}"


def _lag(now_s: float | None, worst_s: float | None) -> str:
    if now_s is None:
        return "unknown"
    worst = "" if worst_s is None else f", at worst {worst_s * 1000:.0f} ms"
    note = ": it is overloaded, or starved by the host" if now_s > LATE_S else ""
    return f"its event loop is {now_s * 1000:.0f} ms late{worst}{note}"


def _print_json(content: dict[str, Any]) -> None:
    from supervisor.cli.fields import print_json  # noqa: PLC0415 - for this option alone

    print_json(content)
