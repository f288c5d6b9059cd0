"""Questions that change a job which is there: stop, kill, cancel, try items again, remove.

Owns the translation of what refuses into words for who asked; the doing is `runner`'s. Invariant:
a job that a runner has is changed by that runner alone.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from supervisor.daemon.contracts import (
    Conflict,
    Json,
    NoSuchJob,
    NotYours,
    Refusal,
    ShelfUnavailable,
    UnknownItem,
)
from supervisor.daemon.desk_fields import Arguments
from supervisor.daemon.desk_shelf import OpenShelf
from supervisor.journal.items import Ledger
from supervisor.runner import control
from supervisor.runner.locks import AlreadyRunning
from supervisor.views.frozen import said
from supervisor.views.item_names import NoSuchItem, items_meant
from supervisor.views.plain import counted

QUARANTINED = "quarantined"


def stop(shelf: OpenShelf, given: Arguments) -> Json:
    """Ask the job's runner to stop it; with `kill`, to kill its worker. `heard`: there is one."""
    chosen = shelf.chosen(given["id"])
    with _in_words(given["id"]):
        if given["kill"]:
            return {"heard": control.kill(chosen.journal, chosen.record)}
        return {"heard": control.stop(chosen.record)}


def conclude_stop(shelf: OpenShelf, given: Arguments) -> Json:
    """Have a job that no runner has stand as stopped."""
    with _in_words(given["id"]):
        control.conclude_stop(shelf.writing(), shelf.path, given["id"], given["source"])
    return {}


def conclude_cancel(shelf: OpenShelf, given: Arguments) -> Json:
    """End a job for good that no runner has."""
    with _in_words(given["id"]):
        control.conclude_cancel(shelf.writing(), shelf.path, given["id"], given["source"])
    return {}


def requeue(shelf: OpenShelf, given: Arguments) -> Json:
    """Have quarantined items tried again by the next runner; which and how many, in words."""
    chosen = shelf.chosen(given["id"])
    spec = said(chosen.record)
    if not spec.is_batch:
        raise Conflict(f"{given['id']} has no items: it is no batch job")
    ledger = chosen.journal.ledger(given["id"])
    numbers = _meant(ledger, spec.cwd, given["items"])
    if numbers:
        from supervisor.runner import opening  # noqa: PLC0415 - to stop a job needs no schema

        with _in_words(given["id"]):
            opening.requeue(shelf.writing(), shelf.path, given["id"], numbers)
    words = f"{counted(len(numbers))} to be tried again" if numbers else "no item is quarantined"
    return {"numbers": numbers, "words": words}


def remove(shelf: OpenShelf, given: Arguments) -> Json:
    """Delete a job: its rows and its folder."""
    from supervisor.runner import remove as removal  # noqa: PLC0415 - as above

    with _in_words(given["id"]):
        removal.remove(shelf.path, shelf.writing(), given["id"])
    return {}


def sweep(shelf: OpenShelf, given: Arguments) -> Json:
    """Finish removals that were broken off."""
    from supervisor.runner import remove as removal  # noqa: PLC0415 - as above

    del given
    return {"ids": removal.sweep(shelf.path, shelf.writing())}


def old(shelf: OpenShelf, given: Arguments) -> Json:
    """Which jobs retention would remove, oldest first."""
    from supervisor.runner import remove as removal  # noqa: PLC0415 - as above

    journal = shelf.reading()
    if journal is None:
        return {"ids": []}
    ids = removal.old(journal, given["older_than_s"], given["keep_bytes"], time.time())
    return {"ids": ids}


def _meant(ledger: Ledger, cwd: str, items: Sequence[str]) -> list[int]:
    """The quarantined items that are meant. Raises Refusal."""
    aside = [one.number for one in ledger.quarantined()]
    named = [one for one in items if one != QUARANTINED]
    try:
        meant = items_meant(ledger, cwd, named)
    except NoSuchItem as error:
        raise UnknownItem(str(error)) from error
    others = sorted(set(meant) - set(aside))
    if others:
        raise Refusal(
            f"not quarantined: {counted(len(others))} ({others[0]} is the first). An item that is "
            "done never runs again; one that is left runs by itself"
        )
    return aside if QUARANTINED in items else meant


@contextmanager
def _in_words(job_id: str) -> Iterator[None]:
    """Refuse in the words of the daemon what the runner's side refuses."""
    try:
        yield
    except KeyError as error:
        if error.args != (job_id,):
            raise  # a fault of ours, and not that there is no such job
        raise NoSuchJob(f"there is no job {job_id}") from error
    except AlreadyRunning as error:
        raise Conflict(f"{job_id}: {error}; stop it first") from error
    except _refusals() as error:
        raise Conflict(str(error)) from error
    except PermissionError as error:
        raise NotYours(error.strerror or str(error)) from error
    except OSError as error:
        raise ShelfUnavailable(f"{job_id}: {error.strerror or error}") from error


def _refusals() -> tuple[type[Exception], ...]:
    """What is refused for the state that the job is in; loaded when something was."""
    from supervisor.runner.opening import AlreadyDone, CancelledForGood  # noqa: PLC0415 - as above
    from supervisor.runner.remove import NotRemoved  # noqa: PLC0415 - as above

    return AlreadyDone, CancelledForGood, NotRemoved, control.NotHeard
