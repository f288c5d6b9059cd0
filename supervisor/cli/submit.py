"""`supervise submit`: hand a job to the daemon, and leave.

Owns the verb and what is said about it: ids on stdout, one a line, for
`id=$(supervise submit job.yaml)`; everything else on stderr. The request is `submission`'s.
"""

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from supervisor.cli.naming import is_path
from supervisor.cli.reach import Reach
from supervisor.cli.submission import Asked, Submission, prepared
from supervisor.client.answers import Accepted
from supervisor.client.calls import Daemon
from supervisor.client.errors import ClientError, NoDaemon
from supervisor.client.find import find_daemon
from supervisor.views.plain import printable

_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.argument("job_file", metavar="JOB.YAML", type=click.Path(path_type=Path)),
    click.option(
        "-p",
        "given",
        metavar="NAME=VALUE[,VALUE...]",
        multiple=True,
        help="Set a param; of several values each makes a job. In a value, a comma is `\\,`.",
    ),
    click.option(
        "--priority",
        type=click.IntRange(-100, 100),
        help="Higher starts first; 0 where nobody says.",
    ),
    click.option(
        "--after", metavar="JOB", multiple=True, help="Start when this job has succeeded."
    ),
    click.option("--key", help="The same key again is the same job again, not a second one."),
    click.option("--group", help="Jobs that are held together, see --hold-after."),
    click.option(
        "--hold-after",
        type=click.IntRange(min=1),
        metavar="N",
        help="After N failures in a row, the group starts nothing more.",
    ),
    click.option(
        "--env-keep",
        metavar="NAME",
        multiple=True,
        help="Store this variable with the job, though it looks like a secret.",
    ),
    click.option(
        "--fresh", is_flag=True, help="Start anew where an ended job wrote; that is kept."
    ),
    click.option("--json", "as_json", is_flag=True, help="Print JSON (docs/json.md)."),
    click.option("--quiet", is_flag=True, help="Print the ids, and no notes."),
)


def _options(function: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@click.command("submit")
@_options
@click.pass_obj
def command(state_dir: Path, /, *, as_json: bool, quiet: bool, **given: Any) -> None:  # noqa: ANN401 - the options
    """Put the job in JOB.YAML into the daemon's queue, and print its id.

    The file is read and checked here; later changes of it count for later jobs alone. The job runs
    with this shell's environment, umask and limits. Of an array, or of `-p` with several values,
    every combination is a job, and all of them are accepted or, but for very large arrays, none.

    Exit codes: 0 accepted, 2 not accepted.
    """
    asked = Asked(**given)
    try:
        found = find_daemon(state_dir)
    except NoDaemon as error:
        raise click.UsageError(f"{error}; or supervise run {asked.job_file} needs none") from error
    with found.connection as connection:
        daemon = Daemon(connection)
        asked = replace(asked, after=_ids(Reach(state_dir, found), asked.after))
        submission = prepared(asked, far=found.far)
        accepted, left_out = _submitted(daemon, submission, as_json=as_json)
        if not quiet:
            _notes(daemon, asked, replace(submission, left_out=tuple(sorted(left_out))), accepted)


def _ids(reach: Reach, after: Sequence[str]) -> tuple[str, ...]:
    """The jobs of --after as the daemon understands them: it knows no paths."""
    here = Path.cwd()
    return tuple(reach.own(one).id if reach.places and is_path(one, here) else one for one in after)


def _submitted(
    daemon: Daemon, submission: Submission, *, as_json: bool
) -> tuple[list[Accepted], set[str]]:
    """Send it, and print the ids; those that were accepted are told also when the rest is not.

    Also gives the variables that are not stored with all of them.
    """
    accepted: list[Accepted] = []
    left_out = set(submission.left_out)
    try:
        for jobs in submission.portions:
            some, unstored = daemon.submit(jobs, submission.surroundings)
            accepted += some
            left_out.update(unstored)
            if not as_json:
                _print_ids([one.id for one in some])
    except ClientError:
        if accepted:
            _note(f"{len(accepted)} jobs were accepted, and the others not:")
        raise
    finally:
        if as_json:
            _print_json(accepted)
    return accepted, left_out


def _print_ids(ids: Sequence[str]) -> None:
    """At once, for whoever reads along; where nobody can, the jobs are accepted all the same."""
    try:
        click.echo("\n".join(ids))
        sys.stdout.flush()
    except OSError:
        _note(f"accepted, though stdout does not take it: {' '.join(ids)}")
        raise


def _print_json(accepted: Sequence[Accepted]) -> None:
    from dataclasses import asdict  # noqa: PLC0415 - for this option alone

    from supervisor.cli.fields import print_json  # noqa: PLC0415 - the same

    print_json([asdict(one) for one in accepted])


def _notes(
    daemon: Daemon, asked: Asked, submission: Submission, accepted: Sequence[Accepted]
) -> None:
    """What a person may want to know, on stderr."""
    known = [one for one in accepted if not one.new]
    for one in known:
        _note(f"{one.id} has this key already: it is {one.state}, and nothing was submitted")
    if len(known) == len(accepted):
        return
    if named := submission.left_out:
        _note(
            f"not stored, as they look like secrets: {', '.join(map(printable, named))}. To store "
            f"one: --env-keep {named[0]}, or env_keep: [{named[0]}] in {asked.job_file}"
        )
    if submission.odd:
        _note(f"not passed on, as they are no UTF-8: {', '.join(map(printable, submission.odd))}")
    if len(accepted) == 1:
        with suppress(ClientError):  # the job is accepted; this is only courtesy
            if why := daemon.document(accepted[0].id).get("waits"):
                _note(f"{accepted[0].id}: {why}")


def _note(words: str) -> None:
    click.echo(f"supervise: {words}", err=True)
