"""What happened, durably: one SQLite file for all jobs of a state folder.

Owns storage, never meaning: events are appended, the derived tables follow in the same transaction.
"""

from supervisor.journal.errors import JournalError, JournalUnavailable, JournalUnusable
from supervisor.journal.journal import Journal
from supervisor.journal.records import AttemptRecord, CheckpointRecord, JobRecord

__all__ = [
    "AttemptRecord",
    "CheckpointRecord",
    "JobRecord",
    "Journal",
    "JournalError",
    "JournalUnavailable",
    "JournalUnusable",
]
