"""`supervise daemon run`: the daemon, in the foreground.

Owns the verb: its options, its log, and the exit code. What the daemon does is the package
`supervisor.daemon`'s, which is imported when it is known to be there.
"""

import logging
import os
import sys
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

import click

from supervisor.cli.main import NAME
from supervisor.runner.exits import Exit

SYSTEM_STATE = Path("/var/lib/supervise")
SYSTEM_SOCKET = Path("/run/supervise/supervise.sock")
USER_SOCKET = "daemon.sock"
TOKEN = "token"  # noqa: S105 - the name of a file
EXTRA = "pip install 'gpu-supervise[daemon]'"


@click.command("run")
@click.option(
    "--system", is_flag=True, help="Serve all users of this host; each job runs as its owner."
)
@click.option(
    "--socket", "path", type=click.Path(path_type=Path), metavar="PATH", help="Where to listen."
)
@click.option(
    "--group", default="supervise", show_default=True, help="With --system: who may connect."
)
@click.option(
    "--admin-group",
    default="supervise-admin",
    show_default=True,
    help="With --system: who may touch everybody's jobs.",
)
@click.option(
    "--tcp",
    metavar="[HOST:]PORT",
    help="Listen on TCP too, on loopback unless told otherwise, for whoever has the token.",
)
@click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Its token, made if there is none. Default: `token` in the state folder.",
)
@click.option(
    "--allow-host", multiple=True, metavar="NAME", help="With --tcp: a name of this host."
)
@click.option("--cpus", type=click.IntRange(min=1), help="Cores for jobs. Default: all.")
@click.option("--memory", metavar="SIZE", help="Memory for jobs, as 48GiB. Default: all.")
@click.option("--keep-jobs", metavar="AGE", help="Remove ended jobs after, for example, 90d.")
@click.option("--keep-size", metavar="SIZE", help="Remove the oldest ended jobs beyond this size.")
@click.option(
    "--launcher",
    type=click.Choice(["auto", "systemd", "session"]),
    default="auto",
    show_default=True,
    help="How runners are started: units of systemd, or sessions of their own.",
)
@click.pass_context
def command(ctx: click.Context, /, **given: object) -> None:
    """Run the daemon in the foreground: queue jobs, start them, keep them alive.

    Ctrl-C ends the daemon alone; its jobs go on, and the next daemon finds them again. Exit codes:
    0 asked to end, 2 wrong usage or another daemon serves this folder, 1 it cannot serve.
    """
    state_dir: Path = ctx.obj
    if given["system"]:
        if os.geteuid() != 0:
            raise click.UsageError("--system serves all users: it needs root")
        if ctx.find_root().params.get("state_dir") is None:
            state_dir = SYSTEM_STATE
    _require_extra()
    from supervisor.cli.daemon.options import options_of  # noqa: PLC0415 - see above
    from supervisor.daemon import main  # noqa: PLC0415 - see above
    from supervisor.daemon.api.sockets import SocketRefused  # noqa: PLC0415 - see above
    from supervisor.daemon.contracts import LaunchFailed, Refusal  # noqa: PLC0415 - see above
    from supervisor.queue.store import QueueError  # noqa: PLC0415 - see above

    options = options_of(state_dir, given)
    _log_to_stderr()
    try:
        sys.exit(main.run(options))
    except main.AlreadyServed as error:
        _refuse(str(error), Exit.USAGE)
    except (SocketRefused, LaunchFailed, QueueError, Refusal) as error:
        _refuse(str(error), Exit.FAILED)


def _require_extra() -> None:
    """Say what is missing where the base was installed alone."""
    try:
        import fastapi  # noqa: F401, PLC0415 - only whether it is there
        import prometheus_client  # noqa: F401, PLC0415 - as above
        import uvicorn  # noqa: F401, PLC0415 - as above
    except ImportError as error:
        raise click.UsageError(
            f"the daemon needs {error.name}, which is not here: {EXTRA}"
        ) from error


def _refuse(message: str, code: int) -> None:
    click.echo(f"{NAME}: {message}", err=True)
    sys.exit(code)


def _log_to_stderr() -> None:
    """One line an event: time, what, and the rest as key=value; systemd's journal has the time."""
    from supervisor.host.lean import structlog  # noqa: PLC0415 - with the daemon alone

    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    stamp = structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S", utc=False)
    shape = structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"])
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            *([] if "JOURNAL_STREAM" in os.environ else [stamp]),
            structlog.processors.format_exc_info,
            _readable,
            shape if "JOURNAL_STREAM" not in os.environ else structlog.processors.LogfmtRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )


def _readable(_logger: object, _name: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """Paths and words of ours as text: the form takes plain values alone."""
    return {key: value if isinstance(value, str | int | float) else str(value)
            for key, value in event.items()}  # fmt: skip
