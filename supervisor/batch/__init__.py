"""What a batch job reads and writes: the source of its items, results, quarantine, contact sheet.

Owns these files, never the ledger: which items there are and which are done stands in the journal.
Starts no process. Invariant: a file that a person may open is whole, or ends at a whole line.
"""

from supervisor.batch.planner import Listing, listing_command, listing_setup
from supervisor.batch.quarantine import write_quarantine
from supervisor.batch.results import Results, ResultsProblem, ResultsShort
from supervisor.batch.sheet import SheetTitle, write_sheet
from supervisor.batch.sources import CallableSource, Source, SourceProblem, source_of

__all__ = [
    "CallableSource",
    "Listing",
    "Results",
    "ResultsProblem",
    "ResultsShort",
    "SheetTitle",
    "Source",
    "SourceProblem",
    "listing_command",
    "listing_setup",
    "source_of",
    "write_quarantine",
    "write_sheet",
]
