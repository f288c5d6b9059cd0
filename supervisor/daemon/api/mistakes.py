"""What becomes of an error that nobody expected.

Owns its log entry and what the client is told: an id by which the entry is found, and nothing of
the error itself, which may name what is none of the client's business.
"""

import secrets
from typing import Any

from supervisor.daemon.api.errors import InternalError


def mistake(error: BaseException, log: Any, **where: object) -> InternalError:  # noqa: ANN401 - structlog's loggers have no common type
    """Log the error and return the refusal that stands for it."""
    id_ = secrets.token_hex(4)
    log.error("mistake", id=id_, error=repr(error), exc_info=error, **where)
    return InternalError(
        f"a mistake in the daemon, not in the request; its log has the details under {id_}"
    )
