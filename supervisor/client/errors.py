"""What can go wrong between a verb and the daemon, in words for people.

Owns the errors of the client; imports nothing. Invariant: each message says what happened and what
to do, so a verb prints it as it is.
"""


class ClientError(Exception):
    """The daemon was not reached, or it said no."""


class NoDaemon(ClientError):
    """Nobody listens. `where` is the socket or the address that was tried."""

    def __init__(self, where: str, why: str = "") -> None:
        detail = f" ({why})" if why else ""
        super().__init__(
            f"no daemon is running at {where}{detail}: supervise daemon run (in the foreground), "
            "or supervise daemon install"
        )
        self.where = where


class NotAllowed(ClientError):
    """There is a daemon, and this user may not speak to it."""


class Untrusted(ClientError):
    """Somebody else listens where a daemon of ours should."""


class DaemonGone(ClientError):
    """The connection broke, or nothing came, after a request was sent.

    `changes` says that it was one that changes something, and so may have been carried out.
    """

    def __init__(self, why: str, *, changes: bool) -> None:
        known = (
            "What was asked for may have been done: look with `supervise ps`"
            if changes
            else "Give the command again when it is back"
        )
        super().__init__(f"the daemon did not answer: {why}. {known}.")
        self.changes = changes


class Refused(ClientError):
    """The daemon answered no. `status` is HTTP's, `kind` the daemon's word for the reason."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message


class OtherVersion(ClientError):
    """The daemon does not speak this program's version of the API."""


class TooOld(OtherVersion):
    """The daemon is older than this program."""


class TooNew(OtherVersion):
    """The daemon is newer than this program."""
