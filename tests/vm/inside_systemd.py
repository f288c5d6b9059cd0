"""In the machine, under a real systemd: what its scopes give, and what `doctor` says where not."""

import os
import pytest


def test_systemd_runs() -> None:
    """PID 1 is systemd."""
    assert open("/proc/1/comm").read() == "systemd\n"
