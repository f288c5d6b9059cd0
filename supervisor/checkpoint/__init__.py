"""Checkpoints: find, verify, pin, set aside, choose.

Owns everything the supervisor does to checkpoint files. Synchronous, standard library only: the
runner calls it from one worker thread. It never unpickles, never needs torch, and imports nothing
else of the supervisor but `host.durable`. Invariant: a checkpoint is chosen only after its bytes
were judged, and the last one that verified exists at every moment, here or with the script.

    layout = Layout(root=Path("runs"), glob="epoch_*.pt")
    choice = choose(layout, Remembered(), Pins(Path("pins")), Query())
"""

from supervisor.checkpoint.aside import set_aside
from supervisor.checkpoint.choose import Choice, Chosen, Query, Rejected, choose
from supervisor.checkpoint.errors import (
    CheckpointError,
    DiskFull,
    PinDamaged,
    PinFailed,
    PointerUnclear,
    RestoreFailed,
    SetAsideFailed,
)
from supervisor.checkpoint.find import Found, Listing, Skipped, find
from supervisor.checkpoint.fingerprint import Fingerprint, fingerprint
from supervisor.checkpoint.growth import Growth, growth
from supervisor.checkpoint.layout import (
    Layout,
    StepFromJson,
    StepFromName,
    StepFromPointer,
    StepSource,
)
from supervisor.checkpoint.manifest import Pin
from supervisor.checkpoint.pins import Pins
from supervisor.checkpoint.pointer import Target, rewrite_pointer
from supervisor.checkpoint.promote import promote
from supervisor.checkpoint.restore import restore
from supervisor.checkpoint.retain import retain
from supervisor.checkpoint.verdict import Kind, Level, Outcome, Verdict
from supervisor.checkpoint.verify import Memory, Remembered, look, verify

__all__ = [
    "CheckpointError",
    "Choice",
    "Chosen",
    "DiskFull",
    "Fingerprint",
    "Found",
    "Growth",
    "Kind",
    "Layout",
    "Level",
    "Listing",
    "Memory",
    "Outcome",
    "Pin",
    "PinDamaged",
    "PinFailed",
    "Pins",
    "PointerUnclear",
    "Query",
    "Rejected",
    "Remembered",
    "RestoreFailed",
    "SetAsideFailed",
    "Skipped",
    "StepFromJson",
    "StepFromName",
    "StepFromPointer",
    "StepSource",
    "Target",
    "Verdict",
    "choose",
    "find",
    "fingerprint",
    "growth",
    "look",
    "promote",
    "restore",
    "retain",
    "rewrite_pointer",
    "set_aside",
    "verify",
]
