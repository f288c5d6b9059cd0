import threading

import pytest

from workers.train import writer as module
from workers.train.writer import Writer

LIMIT_S = 20


class Notes:
    """A sink that notes what it wrote; it can be held, and it can fail."""

    def __init__(self, shared=None):
        self.written = [] if shared is None else shared
        self.open = threading.Event()
        self.open.set()
        self.error = None

    def write(self, items):
        """Do so."""
        self.open.wait(LIMIT_S)
        if self.error is not None:
            raise self.error
        self.written += items


@pytest.fixture
def writer():
    """One that ends with the test."""
    made = Writer()
    yield made
    made.close(LIMIT_S)


def test_items_of_several_sinks_are_written_in_the_order_they_were_given(writer):
    """A snapshot between metric lines comes after those before it and before those after it."""
    shared = []
    lines, snapshots = Notes(shared), Notes(shared)
    for number in range(300):
        writer.put(snapshots if number % 7 == 0 else lines, number)
    assert writer.settle(LIMIT_S)
    assert shared == list(range(300))


def test_what_failed_is_raised_and_nothing_later_is_written(writer):
    """After a failure no later line exists that a checkpoint before it would not know."""
    broken, fine = Notes(), Notes()
    broken.error = OSError(28, "No space left on device")
    writer.put(fine, 1)
    writer.put_now(broken, 2)
    writer.put_now(fine, 3)
    assert writer.settle(LIMIT_S)
    assert fine.written == [1]
    with pytest.raises(OSError, match="No space left"):
        writer.check()


def test_a_training_that_is_too_far_ahead_waits(writer, monkeypatch):
    """The queue is bounded: beyond it, giving waits for the writing."""
    monkeypatch.setattr(module, "QUEUE_LIMIT", 50)
    notes = Notes()
    for number in range(500):
        writer.put(notes, number)
        assert len(writer._queue) <= 52
    assert writer.settle(LIMIT_S)
    assert notes.written == list(range(500))


def test_an_exit_without_an_end_writes_what_was_given(writer):
    """A script that dies between two hooks still has its last lines."""
    notes = Notes()
    writer.put(notes, 1)
    writer._at_exit()
    assert notes.written == [1]


def test_waiting_is_bounded_and_says_so(writer):
    """A disk that hangs does not hang who waits for it with a limit."""
    notes = Notes()
    notes.open.clear()
    writer.put_now(notes, 1)
    assert not writer.settle(0.01)
    notes.open.set()
    assert writer.settle(LIMIT_S)


def test_a_writer_that_was_never_needed_has_no_thread():
    """Ranks that write nothing pay nothing."""
    before = threading.active_count()
    made = Writer()
    assert made.settle()
    made.close()
    assert threading.active_count() == before
