"""A script that does all the wrong things to its checkpoints, and the promise that holds anyway."""

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from supervisor.checkpoint import (
    Layout,
    Pins,
    Query,
    Remembered,
    StepFromPointer,
    choose,
    find,
    look,
    retain,
)


def content(step: int) -> bytes:
    """What a whole checkpoint of that step holds: text, so that a torn one is told by us."""
    return f"step {step} ".encode() * 30


class Script(RuleBasedStateMachine):
    """The script writes in place or in new files, tears, deletes; the runner surveys and chooses.

    The promise: once a step was verified and pinned, a choice never ends below it.
    """

    @initialize(in_place=st.booleans())
    def start(self, in_place: bool) -> None:  # noqa: FBT001 - drawn by the test
        """Begin with an empty folder."""
        self.folder = Path(tempfile.mkdtemp(prefix="supervise-script-"))
        self.root = self.folder / "run"
        self.root.mkdir()
        self.in_place = in_place
        self.layout = (
            Layout(self.root, "last.pt", StepFromPointer("step"))
            if in_place
            else Layout(self.root, "ckpt_*.pt")
        )
        self.pins, self.memory = Pins(self.folder / "pins"), Remembered()
        self.step, self.pinned = 0, 0

    def path(self, step: int) -> Path:
        """Say where the script writes that step."""
        return self.root / ("last.pt" if self.in_place else f"ckpt_{step}.pt")

    @rule()
    def save(self) -> None:
        """Save the next step, over the old one or beside it."""
        self.step += 1
        if self.in_place:
            (self.root / "step").write_text(str(self.step))
        self.path(self.step).write_bytes(content(self.step))

    @rule()
    def save_torn(self) -> None:
        """Die in the middle of saving the next step."""
        self.step += 1
        if self.in_place:
            (self.root / "step").write_text(str(self.step))
        self.path(self.step).write_bytes(b"PK\x03\x04" + content(self.step)[:50])

    @rule()
    def delete_all(self) -> None:
        """Delete every checkpoint before writing the next."""
        for path in self.root.glob("*.pt"):
            path.unlink()

    @rule()
    def delete_folder(self) -> None:
        """Clean the whole output folder."""
        shutil.rmtree(self.root)
        self.root.mkdir()

    @rule()
    def lose_the_step(self) -> None:
        """Leave the step's file empty, as a crash does."""
        if self.in_place:
            (self.root / "step").write_bytes(b"")

    @rule()
    def survey(self) -> None:
        """As the runner does while the worker lives: verify the newest good one and pin it."""
        for found in find(self.layout).found:
            verdict = look(found, self.layout, self.memory, worker_lives=False)
            if verdict.ok and found.step >= self.pinned:
                self.pins.pin(found, verdict)
                self.pinned = found.step
                retain(self.layout, [found], 1)
                return

    @rule()
    def restart(self) -> None:
        """As the runner does between two attempts."""
        choice = choose(self.layout, self.memory, self.pins, Query())
        if choice.checkpoint is None:
            assert self.pinned == 0
            return
        assert choice.checkpoint.step >= self.pinned
        assert choice.checkpoint.path.read_bytes() == content(choice.checkpoint.step)
        self.step = choice.checkpoint.step

    @invariant()
    def a_pin_is_whole(self) -> None:
        """At every moment the newest pin is the last pinned step, complete."""
        newest = self.pins.newest() if hasattr(self, "pins") else None
        if newest is not None:
            assert newest.step == self.pinned
            assert newest.payload.read_bytes() == content(newest.step)
            assert self.pins.damaged() == ()

    def teardown(self) -> None:
        """Remove the folder."""
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)


TestScript = Script.TestCase
TestScript.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
