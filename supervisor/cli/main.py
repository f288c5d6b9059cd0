"""The command line's frame: `supervise [--state-dir DIR] VERB`.

Owns the table of verbs, the exit codes and the form of every error message. A verb's module is
imported when the verb is used and not before, so that a quick verb stays quick. Nobody's mistake
ends in a traceback; only a fault of this program does.
"""

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import click

from supervisor import __version__
from supervisor.runner.exits import Exit
from supervisor.runner.home import default_state_dir

NAME = "supervise"
STDOUT_FD, STDERR_FD = 1, 2
COMPLETION = "_SUPERVISE_COMPLETE"  # set by the shell when it asks click for completions


# Verb -> (module with the attribute `command`, one line of help), by section of the help page.
VERBS: dict[str, dict[str, tuple[str, str]]] = {
    "Run a job": {
        "run": ("supervisor.cli.run", "Run a job until it is done; the same again resumes it."),
        "retry": ("supervisor.cli.retry", "Run a job again, or some of its items."),
        "check": ("supervisor.cli.check", "Check a job.yaml and print what it means."),
        "schema": ("supervisor.cli.schema", "Print the JSON Schema of job.yaml, for editors."),
    },
    "The queue": {
        "submit": ("supervisor.cli.submit", "Put a job into the daemon's queue; print its id."),
        "wait": ("supervisor.cli.wait", "Wait until jobs have ended; their exit code."),
        "stop": ("supervisor.cli.stop", "Ask jobs to save and stop; they can be resumed."),
        "kill": ("supervisor.cli.kill", "Kill the workers of jobs at once."),
        "cancel": ("supervisor.cli.cancel", "End jobs for good."),
        "resume": ("supervisor.cli.resume", "Let jobs wait for their turn again."),
        "rm": ("supervisor.cli.rm", "Remove ended jobs with their logs and copies."),
        "daemon": ("supervisor.cli.daemon.group", "Run, install or look at the daemon."),
    },
    "Look at jobs": {
        "ps": ("supervisor.cli.ps", "List all jobs."),
        "show": ("supervisor.cli.show", "Show one job: state, attempts, checkpoints."),
        "attach": ("supervisor.cli.attach", "Watch a job as `run` shows it; leaving ends nothing."),
        "logs": ("supervisor.cli.logs", "Print what the worker printed; -f follows it."),
        "events": ("supervisor.cli.events", "Print every event that the journal has of a job."),
        "explain": ("supervisor.cli.explain", "Tell why each attempt ended and what comes next."),
        "report": ("supervisor.cli.report", "Tell what each fault cost, in steps and in time."),
    },
    "Look at the host": {
        "gpus": ("supervisor.cli.gpus", "List the GPUs and who holds them; release one."),
        "doctor": (
            "supervisor.cli.doctor",
            "Tell what works on this host, and what it would take.",
        ),
        "top": ("supervisor.cli.top", "Watch the running jobs and the GPUs, live."),
    },
    "Checkpoints": {
        "checkpoint": ("supervisor.cli.checkpoint", "List or verify a job's checkpoints."),
    },
    "The shell": {
        "completion": ("supervisor.cli.completion", "Print the completion script of a shell."),
    },
}

# Errors that are not this program's fault -> exit code. They are looked up among the modules that
# are loaded: an error whose module is not was not raised.
KNOWN_ERRORS: tuple[tuple[str, str, Exit], ...] = (
    ("supervisor.client.errors", "DaemonGone", Exit.FAILED),
    ("supervisor.client.errors", "ClientError", Exit.USAGE),
    ("supervisor.journal.errors", "JournalError", Exit.HOLDING),
    ("supervisor.checkpoint.errors", "CheckpointError", Exit.HOLDING),
    ("supervisor.spec.problems", "SpecError", Exit.USAGE),
    ("builtins", "OSError", Exit.FAILED),
)


class LazyGroup(click.Group):
    """The verbs of VERBS, each imported on its first use."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Every verb, in the order of the help page."""
        return [verb for section in VERBS.values() for verb in section]

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb's command, imported now; None if there is no such verb."""
        for section in VERBS.values():
            if cmd_name in section:
                command: click.Command = import_module(section[cmd_name][0]).command
                return command
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The verb that the arguments begin with.

        Raises:
            click.UsageError: there is none of that name.
        """
        verbs = self.list_commands(ctx)
        if args[0] not in verbs and not args[0].startswith("-"):
            raise click.UsageError(f"no such verb: {args[0]}{did_you_mean(args[0], verbs)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The help page's list of verbs, which imports none of them."""
        width = max(map(len, self.list_commands(ctx)))
        for title, section in VERBS.items():
            with formatter.section(title):
                formatter.write_dl(
                    [(verb.ljust(width), about) for verb, (_, about) in section.items()]
                )

    def shell_complete(
        self, ctx: click.Context, incomplete: str
    ) -> list["click.shell_completion.CompletionItem"]:
        """Verbs that begin so, without importing them; options where one was begun."""
        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        from click.shell_completion import CompletionItem  # noqa: PLC0415 - a shell asks, no person

        return [
            CompletionItem(verb, help=about)
            for section in VERBS.values()
            for verb, (_, about) in section.items()
            if verb.startswith(incomplete)
        ]

    def main(  # type: ignore[override]  # click overloads it by a mode that has one value here
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        **extra: Any,  # noqa: ANN401 - click's own signature
    ) -> NoReturn:
        """Run a verb and leave with its exit code."""
        if COMPLETION in os.environ:
            super().main(args, prog_name or NAME, **extra)

        def call() -> object:
            words = list(sys.argv[1:] if args is None else args)
            with self.make_context(prog_name or NAME, words, **extra) as ctx:
                return self.invoke(ctx)

        sys.exit(_exit_code(call))


def did_you_mean(word: str, known: list[str]) -> str:
    """` (did you mean X?)`, or nothing where nothing known is like the word."""
    import difflib  # noqa: PLC0415 - only after a mistake

    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f" (did you mean {near[0]}?)" if near else ""


def _exit_code(call: Callable[[], object]) -> int:
    """How `call` ended, as an exit code; a known error is told on stderr."""
    code: int = Exit.DONE
    try:
        call()
        sys.stdout.flush()
    except click.exceptions.Exit as ended:
        code = ended.exit_code
    except BrokenPipeError:  # the reader has seen enough: `supervise ps | head -1`
        _write_no_more()
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return Exit.USAGE
    except click.ClickException as error:
        code = _told(f"{NAME}: {error.format_message()}{_try_help(error)}", error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo(err=True)  # the prompt comes on a line of its own, not behind the terminal's ^C
        code = Exit.INTERRUPTED
    except Exception as error:
        known = _known(error)
        if known is None:
            raise
        code = _told(_words(error), known)
        try:
            sys.stdout.flush()
        except OSError:  # it is stdout itself that is broken; do not fail again on leaving
            _write_no_more()
    return code


def _told(message: str, code: int) -> int:
    with suppress(OSError):
        click.echo(message, err=True)
    return code


def _try_help(error: click.ClickException) -> str:
    context = error.ctx if isinstance(error, click.UsageError) else None
    return "" if context is None else f"\nSee: {context.command_path} --help"


def _known(error: Exception) -> Exit | None:
    for module, name, code in KNOWN_ERRORS:
        if module in sys.modules and isinstance(error, getattr(sys.modules[module], name)):
            return code
    return None


def _words(error: Exception) -> str:
    if type(error).__name__ == "SpecError":  # begins with FILE:LINE:COLUMN, where an editor jumps
        return str(error)
    if not isinstance(error, OSError) or error.strerror is None:
        return f"{NAME}: {error}"
    where = f"{error.filename}: " if error.filename else ""
    return f"{NAME}: {where}{error.strerror}"


def _write_no_more() -> None:
    """Point stdout at nothing, so that the interpreter's last flush cannot fail."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, sys.stdout.fileno())
    os.close(nothing)


@click.group(
    NAME,
    cls=LazyGroup,
    subcommand_metavar="VERB [ARGUMENTS]",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="JOB is a job's name, its id, the beginning of its id, or its job.yaml. Without it, the "
    "newest job of the current folder is meant.",
)
@click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Where jobs keep journal, logs and copies. Default: $XDG_STATE_HOME/supervise, else "
    "~/.local/state/supervise.",
)
@click.version_option(__version__, prog_name=NAME, message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context, state_dir: Path | None) -> None:
    """Keep GPU jobs alive: restart them from the latest checkpoint that verifies."""
    if os.environ.get("NO_COLOR"):  # no-color.org
        ctx.color = False
    try:
        ctx.obj = (state_dir or default_state_dir()).absolute()
    except RuntimeError as error:  # Path.home() without HOME and without a passwd entry
        raise click.UsageError(f"no state folder: {error} Name one with --state-dir.") from error


def _fill_standard_descriptors() -> None:
    """Open what a caller closed (`1>&-`) on nothing, or the journal would become its stdout."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= STDERR_FD:
        pass
    os.close(fd)
    # Python has no stream object for a descriptor that was closed when it started.
    sys.stdout = sys.stdout or os.fdopen(STDOUT_FD, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(STDERR_FD, "w", closefd=False)


def main() -> NoReturn:
    """Entry point of the command `supervise`."""
    if sys.platform != "linux":
        sys.exit(
            _told(f"{NAME}: it supervises processes by means that only Linux has.", Exit.USAGE)
        )
    _fill_standard_descriptors()
    for stream in (sys.stdout, sys.stderr):
        # Names of files and lines of logs may hold what the terminal's encoding cannot say.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a text file, always
    cli.main()
