"""Which items a person means, on the command line.

Owns the exit code of a name that means none.
"""

from collections.abc import Sequence

import click

from supervisor.journal.items import Ledger
from supervisor.views import item_names
from supervisor.views.item_names import names_from

__all__ = ["NoSuchItem", "items_meant", "names_from"]


class NoSuchItem(click.ClickException):
    """What a person named is no item of the job."""

    exit_code = 2


def items_meant(ledger: Ledger, cwd: str, texts: Sequence[str]) -> list[int]:
    """The numbers of items that a person named: by name, by path, by JSON or by number.

    Raises:
        NoSuchItem: one of them is none.
    """
    try:
        return item_names.items_meant(ledger, cwd, texts)
    except item_names.NoSuchItem as error:
        raise NoSuchItem(str(error)) from error
