"""The argument JOB of verbs that take several, and what a shell offers for it.

Owns both. Completion reads the names of jobs and nothing else, and stays silent about whatever is
wrong: a shell has no place for messages.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from supervisor.runner.home import default_state_dir

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

OFFERED = 200  # the newest; nobody reads more


def complete_job(
    ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list["CompletionItem"]:
    """Names and ids of jobs that begin so, the newest first; files where there is none."""
    # What only completion needs is loaded here: verbs are quick.
    from click.shell_completion import CompletionItem  # noqa: PLC0415 - see above

    from supervisor.client.find import own_shelves  # noqa: PLC0415 - see above
    from supervisor.client.index import known_jobs  # noqa: PLC0415 - see above

    state_dir = ctx.find_root().params.get("state_dir") or default_state_dir()
    try:
        jobs = known_jobs(own_shelves(Path(state_dir).absolute()))[::-1]
    except Exception:  # noqa: BLE001 - see the module's docstring
        jobs = []
    offered = {
        text: f"{one.state}, {one.folder}"
        for one in jobs
        for text in (one.name, one.id)
        if text.startswith(incomplete)
    }
    if not offered:
        return [CompletionItem(incomplete, type="file")]
    return [CompletionItem(text, help=about) for text, about in list(offered.items())[:OFFERED]]


jobs_argument = click.argument("jobs", nargs=-1, metavar="[JOB]...", shell_complete=complete_job)
