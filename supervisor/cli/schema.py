"""`supervise schema`: the JSON Schema of job.yaml, for editors.

Owns the verb alone.
"""

import json

import click

from supervisor.spec.schema import json_schema


@click.command("schema", short_help="Print the JSON Schema of job.yaml.")
def command() -> None:
    """Print the JSON Schema of job.yaml, for editors that complete and check as you type."""
    click.echo(json.dumps(json_schema(), indent=2))
