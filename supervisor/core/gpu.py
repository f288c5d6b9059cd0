"""What can go wrong with a GPU, and what that means for the job that was using it.

Owns the vocabulary and the table of Xid codes; talks to no driver.
"""

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class Severity(StrEnum):
    """What a trouble asks for: nothing, a new process, a reset of the GPU, or another GPU."""

    NOTE = "note"
    RESTART = "restart"
    RESET = "reset"
    AVOID = "avoid"


class TroubleKind(StrEnum):
    """Where a trouble was seen."""

    XID = "xid"
    ECC = "ecc"
    LOST = "lost"
    RECOVERY = "recovery"
    DRIVER_HUNG = "driver_hung"
    NOT_RELEASED = "not_released"
    UNKILLABLE = "unkillable"


@dataclass(frozen=True, slots=True)
class GpuTrouble:
    """One trouble of one GPU. `code` is the Xid, where it is one; `at_s` is wall-clock time."""

    uuid: str
    kind: TroubleKind
    code: int | None
    text: str
    severity: Severity
    at_s: float

    @property
    def spoils_gpu(self) -> bool:
        """Whether the GPU is to be left alone until somebody has looked, or the host rebooted."""
        return self.severity in {Severity.RESET, Severity.AVOID}

    @property
    def ends_attempt(self) -> bool:
        """Whether no program can go on with this GPU.

        A driver that does not answer *us* proves nothing about the worker: it is left alone.
        """
        return self.spoils_gpu and self.kind is not TroubleKind.DRIVER_HUNG


@dataclass(frozen=True, slots=True)
class Xid:
    """One line of the driver's catalogue: what it says, and what it asks for."""

    text: str
    severity: Severity


# NVIDIA, "Xid Errors" (driver documentation, Ampere and newer): meaning and recommended action,
# shortened. Where the catalogue has a workflow of its own (NVLink 5, auxiliary power), the careful
# choice. A code that is not listed is only noted: guessing would take a healthy GPU away.
_NAMED = {
    13: Xid("graphics engine exception, mostly an illegal access by the program", Severity.RESTART),
    31: Xid("GPU memory page fault, mostly an illegal access by the program", Severity.RESTART),
    32: Xid("corrupted push buffer", Severity.RESTART),
    38: Xid("driver firmware error", Severity.NOTE),
    43: Xid("the program's channel was reset", Severity.RESTART),
    # It follows every program that ends in the midst of its work, also when we end it.
    45: Xid("the program's channels were torn down, mostly after another error", Severity.NOTE),
    46: Xid("the GPU stopped processing", Severity.RESET),
    48: Xid("uncorrectable double-bit ECC error", Severity.RESET),
    54: Xid("the auxiliary power is not connected", Severity.AVOID),
    62: Xid("internal micro-controller halt", Severity.RESET),
    63: Xid("a memory row was marked for remapping", Severity.NOTE),
    64: Xid("a memory row could not be remapped", Severity.RESET),
    69: Xid("graphics engine class error", Severity.RESTART),
    74: Xid("NVLink error", Severity.AVOID),
    79: Xid("the GPU has fallen off the bus", Severity.AVOID),
    92: Xid("a high rate of corrected ECC errors", Severity.NOTE),
    94: Xid("contained ECC error: only the program that hit it must restart", Severity.RESTART),
    95: Xid("uncontained ECC error", Severity.RESET),
    109: Xid("context switch timeout", Severity.RESET),
    119: Xid("the GPU's system processor does not answer", Severity.RESET),
    120: Xid("error of the GPU's system processor", Severity.RESET),
    140: Xid("unrecovered ECC error", Severity.RESET),
}
_RANGES: tuple[tuple[Severity, str, tuple[range, ...]], ...] = (
    (
        Severity.RESTART,
        "an error of the program's own work on the GPU",
        (
            range(8, 9),
            range(11, 12),
            range(25, 26),
            range(39, 42),
            range(60, 61),
            range(68, 69),
            range(70, 73),
            range(75, 78),
            range(80, 81),
            range(82, 87),
            range(88, 90),
            range(99, 106),
            range(126, 136),
            range(139, 140),
        ),
    ),
    (
        Severity.RESET,
        "an error after which the GPU must be reset",
        (range(110, 111), range(136, 137), range(143, 152), range(155, 157), range(158, 159)),
    ),
)  # fmt: skip -- one line of codes
XIDS = MappingProxyType(
    {
        code: Xid(text, severity)
        for severity, text, ranges in _RANGES
        for codes in ranges
        for code in codes
    }
    | _NAMED
)


def xid_trouble(uuid: str, code: int, at_s: float, said: str = "") -> GpuTrouble:
    """The trouble that an Xid means. `said` is the driver's own line, where there is one."""
    known = XIDS.get(code)
    text = known.text if known else said or "not in the table; see NVIDIA's list of Xid errors"
    severity = known.severity if known else Severity.NOTE
    return GpuTrouble(uuid, TroubleKind.XID, code, f"Xid {code}: {text}", severity, at_s)
