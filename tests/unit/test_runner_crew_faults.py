"""What an item's exception means to the crew."""

from supervisor.runner.crew.member import _FAULTS
from workers.protocol import FAILURE_KINDS


def test_every_kind_of_failure_is_a_fault_of_an_item():
    """No word that a worker may say ends the runner."""
    assert set(FAILURE_KINDS) <= set(_FAULTS)
