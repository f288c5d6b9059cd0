"""How a document is printed.

Owns that form alone; what stands in it is `supervisor.views`'.
"""

import json

import click


def print_json(content: object) -> None:
    """Print one JSON document."""
    click.echo(json.dumps(content, indent=2, ensure_ascii=False))
