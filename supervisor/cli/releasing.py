"""`supervise gpus --release`: GPUs that were set aside are used again.

Owns which GPU a person means, and telling what became of it. A GPU that has fallen off the bus is
known by its record alone, so the driver is asked only where the records do not know the name.
"""

import click

from supervisor.cli.fields import print_json
from supervisor.gpu.aside import SetAside
from supervisor.gpu.leases import LeaseFolderUnusable, Leases
from supervisor.gpu.model import Inventory
from supervisor.gpu.probe import look
from supervisor.views.plain import printable
from supervisor.views.times import clock

ALL = "all"
KINDS = ("", "GPU-", "MIG-")  # people leave out what every uuid begins with


class NoSuchGpu(click.ClickException):
    """GPU means none, or more than one; the message lists what there is."""


def release(leases: Leases, text: str, *, as_json: bool) -> None:
    """Release the GPU that a person means; a GPU that was not set aside is no mistake.

    Raises:
        click.ClickException: no such GPU, or the lease folder does not allow it.

    """
    try:
        asides = leases.set_asides()
        meant = _meant(text, asides)
        released = [uuid for uuid in meant if leases.release(uuid)]
    except LeaseFolderUnusable as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        print_json({"released": released})
        return
    for one in asides:
        if one.uuid in released:
            by = f" by job {one.job_id} at {clock(one.at_s)}" if one.job_id else ""
            words = f"{one.uuid} may be used again; it was set aside{by}: {one.reason}"
            click.echo(printable(words))
    if not released:
        click.echo("no GPU is set aside" if text == ALL else f"GPU {text} was not set aside")


def _meant(text: str, asides: list[SetAside]) -> list[str]:
    """The uuids to release: of a GPU, and of the MIG instances on it."""
    known = list(dict.fromkeys(one.uuid for one in asides))
    if text == ALL:
        return known
    found = _beginning(text, known) if not text.isdigit() else []
    if not found:
        inventory, _ = look()
        found = _of_index(int(text), inventory) if text.isdigit() and text.isascii() else []
        found = found or _beginning(text, known + [gpu.uuid for gpu in inventory.gpus])
        if not found:
            raise NoSuchGpu(f"no such GPU: {text}. {_listed(inventory, known)}")
        found += [gpu.uuid for gpu in inventory.gpus if gpu.parent in found]
        return list(dict.fromkeys(found))
    return found


def _of_index(index: int, inventory: Inventory) -> list[str]:
    return [gpu.uuid for gpu in inventory.gpus if gpu.parent is None and gpu.index == index]


def _beginning(text: str, known: list[str]) -> list[str]:
    """The one uuid that is, or begins with, the text.

    Raises:
        NoSuchGpu: several do.

    """
    if text in known:
        return [text]
    starts = tuple(kind + text.lower() for kind in map(str.lower, KINDS))
    found = [one for one in dict.fromkeys(known) if text and one.lower().startswith(starts)]
    if len(found) > 1:
        raise NoSuchGpu(f"{text} may mean several GPUs; say which is meant: {', '.join(found)}")
    return found


def _listed(inventory: Inventory, known: list[str]) -> str:
    there = [f"{gpu.index} ({gpu.uuid})" for gpu in inventory.gpus if gpu.parent is None]
    there += [uuid for uuid in known if inventory.find(uuid) is None]
    why = f" ({inventory.problem})" if inventory.problem else ""
    return f"There is: {', '.join(there)}{why}" if there else f"There is none{why}"
