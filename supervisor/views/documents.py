"""The documents themselves: what `ps`, `show`, `explain` and `report` print as JSON.

Owns how the parts are put together; docs/json.md has their keys. The daemon's API answers with the
very same documents. Reads the journal and the job's folder, and writes nothing.
"""

from collections.abc import Sequence
from dataclasses import asdict

from supervisor.journal import AttemptRecord, JobRecord, Journal
from supervisor.views.chosen import Chosen
from supervisor.views.fields import Fields, attempt_fields, attempts_of, full_job_fields, job_fields
from supervisor.views.frozen import said


def listing(journal: Journal, records: Sequence[JobRecord]) -> list[Fields]:
    """One short document a job, in the order of the records: `ps --json`."""
    last = journal.last_attempts()
    found = []
    for record in records:
        number, cause = last.get(record.id, (None, None))
        found.append(job_fields(record) | {"attempt": number, "last_cause": cause})
    return found


def document(chosen: Chosen) -> Fields:
    """All of a job, its attempts, checkpoints and items: `show --json`."""
    from supervisor.views.batch import batch_fields  # noqa: PLC0415 - `ps` needs none

    return full_job_fields(chosen) | batch_fields(chosen)


def explanation(chosen: Chosen, attempts: Sequence[AttemptRecord] | None = None) -> Fields:
    """Why attempts ended, all or these, and what comes next: `explain --json`."""
    from supervisor.views.next_step import next_step  # noqa: PLC0415 - as above
    from supervisor.views.proof import Start, proof_of, starts_of  # noqa: PLC0415 - as above

    starts = starts_of(chosen)
    step = next_step(chosen)
    told = []
    for one in attempts_of(chosen.journal, chosen.record) if attempts is None else attempts:
        start = starts.get(one.number, Start())
        proof = proof_of(chosen, one)
        found = {"evidence": proof.raw, "log": proof.log, "stack": proof.stack, "hang": proof.hang}
        told.append(attempt_fields(one) | {"start": asdict(start)} | found)
    following = {"words": step.words, "command": step.command}
    return job_fields(chosen.record) | {"attempts": told, "next": following}


def report(chosen: Chosen) -> Fields:
    """What each attempt's end cost: `report --json`."""
    from supervisor.views.batch import batch_totals  # noqa: PLC0415 - as above
    from supervisor.views.losses import losses, totals, until_s  # noqa: PLC0415 - as above

    attempts = attempts_of(chosen.journal, chosen.record)
    is_batch = said(chosen.record).is_batch
    all_ = totals(attempts, until_s(chosen.record), kept=is_batch)
    rows = [asdict(row) for row in losses(attempts, kept=is_batch)]
    together = asdict(all_) | {"goodput": all_.goodput}
    more = {"rows": rows, "totals": together, "batch": batch_totals(chosen, attempts)}
    return job_fields(chosen.record) | more
