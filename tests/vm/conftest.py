"""What the tests in the machine get."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.vm.given import Given


@pytest.fixture
def given(eventually: Any) -> Iterator[Given]:
    """Give a cgroup to start something in; it is emptied and removed after the test."""
    made = Given.make()
    yield made
    eventually(made.clear, 30)


another = given
