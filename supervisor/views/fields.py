"""The parts of the documents: a job, an attempt, a checkpoint as plain values.

Owns the names of its keys, which docs/json.md documents: a key is never renamed and never changes
its meaning, new ones may come. What is not known is null. Times are ISO 8601 in UTC, durations
seconds, sizes bytes.
"""

from dataclasses import replace
from typing import Any

from supervisor.journal import AttemptRecord, CheckpointRecord, JobRecord, Journal
from supervisor.runner.alive import ATTENDED, runner_lives
from supervisor.views.chosen import Chosen
from supervisor.views.frozen import said
from supervisor.views.times import iso

Fields = dict[str, Any]


def job_fields(record: JobRecord) -> Fields:
    """What every verb says of a job. `runner_alive` is null where no runner is expected."""
    attended = record.state in ATTENDED
    return {
        "id": record.id,
        "name": record.name,
        "state": record.state,
        "why": record.why,
        "step": record.step,
        "total": record.total,
        "folder": record.folder,
        "created_at": iso(record.created_s),
        "updated_at": iso(record.updated_s),
        "runner_pid": record.runner_pid,
        "runner_alive": runner_lives(record) if attended else None,
    }


def full_job_fields(chosen: Chosen) -> Fields:
    """A job with its attempts and checkpoints."""
    spec = said(chosen.record)
    journal, job_id = chosen.journal, chosen.record.id
    return job_fields(chosen.record) | {
        "job_file": spec.source or None,
        "command": list(spec.command),
        "attempts": [attempt_fields(one) for one in attempts_of(journal, chosen.record)],
        "checkpoints": [checkpoint_fields(one) for one in journal.checkpoints(job_id)],
    }


def attempts_of(journal: Journal, record: JobRecord) -> list[AttemptRecord]:
    """The attempts of a job, in order; the running one with the step at which the job is."""
    attempts = journal.attempts(record.id)
    if attempts and attempts[-1].ended_s is None:
        attempts[-1] = replace(attempts[-1], step=record.step)
    return attempts


def ended_s(attempt: AttemptRecord) -> float | None:
    """When an attempt was over, epoch seconds; None while it is not.

    Where nobody saw its end (its runner died), the time of its last words, not the moment at which
    somebody concluded it.
    """
    if attempt.exited_s is not None or attempt.ended_s is None:
        return attempt.exited_s
    if attempt.spawned_s is None or attempt.ran_s is None:
        return attempt.ended_s
    return min(attempt.spawned_s + attempt.ran_s, attempt.ended_s)


def attempt_fields(attempt: AttemptRecord) -> Fields:
    """One attempt. `checkpoint` is the path that it resumed from, `step` the last one seen."""
    return {
        "number": attempt.number,
        "pid": attempt.pid,
        "started_at": iso(attempt.spawned_s),
        "ended_at": iso(ended_s(attempt)),
        "cause": attempt.cause,
        "exit_code": attempt.exit_code,
        "signal": attempt.signal,
        "decision": attempt.decision,
        "reason": attempt.reason,
        "checkpoint": attempt.resumed_path,
        "step": attempt.step,
        "chosen_at": iso(attempt.chosen_s),
        "progress_at": iso(attempt.progress_s),
        "decided_at": iso(attempt.ended_s),
        "ran_s": attempt.ran_s,
        "decision_reason": attempt.decision_reason,
        "resumed_step": attempt.resumed_step,
        "resumed_written_at": iso(attempt.resumed_written_s),
    }


def checkpoint_fields(one: CheckpointRecord) -> Fields:
    """What verification once said of a checkpoint."""
    return {
        "path": one.path,
        "step": one.step,
        "verified": bool(one.verified),
        "level": one.level or None,
        "kind": one.kind or None,
        "size_bytes": one.size_bytes,
        "pinned": bool(one.pinned),
        "reason": one.reason or None,
        "set_aside_to": one.set_aside_to,
        "written_at": iso(one.written_s),
        "seen_at": iso(one.at_s),
    }
