"""What ends a training for a reason that is not the user's code.

Owns the exceptions; raises none. Invariant: each has the kind under which the supervisor decides,
and a text for people: what is wrong, where, and what to do.
"""

from __future__ import annotations

import errno
from typing import Any

from workers.faults import kind_of

# What a file system answers to a place that was chosen wrongly; the rest may be over in a minute.
NO_SUCH_PLACE = frozenset(
    {
        errno.EACCES, errno.EEXIST, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOENT,
        errno.ENOTDIR, errno.EPERM, errno.EROFS,
    }
)  # fmt: skip


class TrainingError(Exception):
    """The training cannot begin or go on. `kind` is one of FAILURE_KINDS.

    `details` are plain facts for the report, such as the step and the indices of samples.
    """

    def __init__(self, message: str, *, kind: str = "error", **details: Any) -> None:  # noqa: ANN401 - plain values
        super().__init__(message)
        self.kind = kind
        self.details = details


def kind_of_place(error: OSError) -> str:
    """Return the kind of a failure to write where a job says: a full disk, a wrong place, or any.

    Only for places that nothing but the job file decides.
    """
    return "bad_config" if error.errno in NO_SUCH_PLACE else kind_of(error)


class Mismatch(TrainingError):
    """The checkpoint is whole, and belongs to another training than this one."""

    def __init__(self, message: str, **details: Any) -> None:  # noqa: ANN401 - as above
        super().__init__(message, kind="bad_config", **details)
