"""`supervise check`: says whether a job.yaml is right, and what would happen.

Owns the verb; changes nothing.
"""

import json
from pathlib import Path

import click

from supervisor.cli.given import load_every, parse_params
from supervisor.spec.frozen import freeze
from supervisor.spec.load import load_job
from supervisor.spec.masking import masked_job
from supervisor.spec.plan import plan
from supervisor.spec.problems import SpecError


@click.command("check", short_help="Check a job.yaml and print the effective plan.")
@click.argument("job_file", metavar="JOB.YAML", type=click.Path(path_type=Path))
@click.option("-p", "given", metavar="NAME=VALUE", multiple=True, help="Set a param of the job.")
@click.option(
    "--json", "as_json", is_flag=True, help="The effective job, or the problems, as JSON."
)
def command(job_file: Path, given: tuple[str, ...], *, as_json: bool) -> None:
    """Check JOB.YAML and print the plan: every field with its effective value.

    Values that look like secrets are masked. Of an array every job is checked.

    Exit codes: 0 it can run, 2 it cannot, and all that is wrong.
    """
    try:
        params = parse_params(given)
        jobs = load_every(job_file, params)
        # Of an array the page shows the file, whose params have the values of the first job.
        spec = jobs[0] if len(jobs) == 1 else load_job(job_file, params)
    except SpecError as error:
        if not as_json:
            raise
        click.echo(json.dumps({"ok": False, "problems": error.as_json()}, indent=2))
        raise click.exceptions.Exit(2) from None
    if as_json:
        frozen = json.loads(freeze(spec))
        frozen["job"] = masked_job(frozen["job"])
        click.echo(json.dumps({"ok": True, "jobs": len(jobs), "job": frozen}, indent=2))
    else:
        click.echo(plan(spec))
