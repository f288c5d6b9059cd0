"""What a training script says to its runner, and hears from it. The script imports this.

    from workers import session

    for step in range(session.resume_step() or 0, total):
        ...
        session.progress(step + 1, total, loss=loss)
        if session.stopping:
            session.publish(save, step + 1)
            session.stopped(step + 1)
            break

Owns the names that a script uses. In a program that is not supervised every call does nothing, so
the same script runs anywhere. Never raises because of the runner, never makes a step wait for it.
Invariant: in a loop `progress` only puts a figure down and `stopping` is a plain attribute; a
thread does the rest.

Read `session.stopping` through the module: `from workers.session import stopping` copies a value.
"""

from __future__ import annotations

import math
import os
import threading
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from workers.packets import NAME_CHARACTERS, number_of
from workers.presence import Board, Presence, become
from workers.protocol import ENV_RESUME_PATH, ENV_RESUME_STEP, ENV_SCRATCH, ENV_SESSION
from workers.reports import PhaseBegan, PhaseEnded, Published

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path
    from typing import Unpack

    from workers.placing import Placing

C = TypeVar("C", bound="Callable[[], object]")

stopping: bool
"""True once the runner has asked to stop: save and leave at the next batch boundary.

The first look tells the runner that a message is enough. From then on a SIGTERM, where the script
has no function of its own for it, only sets this, too.
"""

_reporting: bool | None = None  # whether anybody hears progress; None until the first
_latest: tuple[Any, Any, dict[str, Any]] | None = None


def progress(step: int, total: int | None = None, **metrics: float) -> None:
    """Say how far the training is: `step` steps are done. Costs well under a microsecond.

    Only the latest is kept; a thread sends it, twice a second at most. `metrics` is whatever
    float() takes; what it does not take, and a step that is no number, is left out. Values are
    converted when they are sent: give a tensor detached, or its graph is kept until then.
    """
    global _latest  # noqa: PLW0603 - all that a step may cost
    if _reporting:
        _latest = (step, total, metrics)
    elif _reporting is None:
        _begin((step, total, metrics))


if not TYPE_CHECKING:  # or every name would be one of this module's

    def __getattr__(name: str) -> bool:
        """Return `stopping` at the first look; from then on it is an attribute like any other."""
        if name != "stopping":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        _here.look()
        return globals().setdefault("stopping", False)


def on_stop(callback: C) -> C:
    """Have this called when the script stops because it was asked to; see `stopped`."""
    _here.callbacks.append(callback)
    _here.listen()
    return callback


def stopped(step: int | None = None) -> None:
    """Say that the script has saved and leaves because it was asked to.

    First calls what `on_stop` was given, in that order, once; what one of them raises is written to
    stderr. In a script that was asked, and ends without this or `finished`, its exit calls them.
    """
    _here.call_back()
    _here.last_word("stopped", step)


def finished(step: int | None = None) -> None:
    """Say that the training is complete."""
    _here.last_word("finished", step)


@contextmanager
def phase(name: str, limit_s: float | None = None) -> Iterator[None]:
    """Say that the body makes no progress and is no hang, for `limit_s` at most (30 minutes)."""
    line = _here.speak()
    number = next(_here.phases)
    if line is not None:
        line.send(PhaseBegan(number, str(name)[:NAME_CHARACTERS], _seconds(limit_s)))
    try:
        yield
    finally:
        if line is not None:
            line.send(PhaseEnded(number))


def publish(
    path_or_writer: str | os.PathLike[str] | Callable[[Path], object],
    step: int,
    metrics: Mapping[str, float] | None = None,
    **placing: Unpack[Placing],
) -> Path | None:
    """Make a checkpoint of a step visible, whole or not at all; return its folder.

    `path_or_writer`: a function that writes files into the folder it is given; or a file, which is
    copied under its own name; or a folder, whose contents are. The original stays.
    `placing`: tier="disk" or "memory"; keep=N, the newest that stay beside the best one;
    best=Best("accuracy", "max"), by which of the `metrics` that is; folder, where it is not the
    job's. None: not published, because there is no folder or the memory tier is full.

    Raises: what the writer raises; OSError when the disk is full or cannot be written; ValueError
    for a step, a file or a retention that cannot be. Nothing half written is left then.
    """
    from workers import placing as places  # noqa: PLC0415 - for those who publish

    publisher = places.publisher_of(**placing)
    if publisher is None:
        return None
    waits = publisher.tier == "disk" and threading.current_thread() is threading.main_thread()
    with phase("publish") if waits else nullcontext():
        made = places.put(publisher, path_or_writer, step, metrics)
    if made is None:
        return None
    line = _here.speak()
    if line is not None:
        line.send(Published(str(made.path), made.step, publisher.tier, made.size_bytes))
    return made.path


def error(exc: BaseException, **details: object) -> None:
    """Say what the script dies of; the first counts. What nobody catches is said by itself."""
    _here.fail(exc if isinstance(exc, BaseException) else RuntimeError(exc), details)


def supervised() -> bool:
    """Tell whether a runner started this."""
    return bool(os.environ.get(ENV_SESSION))


def resume_path() -> str | None:
    """Return the checkpoint to go on from; None: begin."""
    return os.environ.get(ENV_RESUME_PATH) or None


def resume_step() -> int | None:
    """Return its step."""
    return number_of(os.environ.get(ENV_RESUME_STEP))


def scratch() -> Path | None:
    """Return the job's folder for what nobody needs after it has succeeded; None: there is none."""
    from pathlib import Path  # noqa: PLC0415 - slow to import

    folder = os.environ.get(ENV_SCRATCH)
    return Path(folder) if folder else None


def _begin(latest: tuple[Any, Any, dict[str, Any]]) -> None:
    """Have the first progress sent at once."""
    global _reporting, _latest  # noqa: PLW0603 - as above
    line = _here.speak()
    if line is not None:
        _latest = latest
        line.wake()
    _reporting = True
    if line is None or not line.alive:
        _lost()


def _lost() -> None:
    """Put nothing down any more: nobody will take it."""
    global _reporting, _latest
    _reporting, _latest = False, None


def _show(*, stop: bool) -> None:
    globals()["stopping"] = stop


def _in_copy() -> None:
    """In a forked child: forget what the parent has said and heard."""
    global _here, _reporting, _latest  # noqa: PLW0603 - as above
    _reporting, _latest = None, None
    globals().pop("stopping", None)
    _here = become(_here.copy())


def _seconds(value: Any) -> float | None:  # noqa: ANN401 - whatever a script gives
    with suppress(Exception):
        seconds = float(value)
        return seconds if math.isfinite(seconds) and seconds >= 0 else None
    return None


_here = become(Presence(Board(lambda: _latest, _lost, _show)))
os.register_at_fork(after_in_child=_in_copy)
