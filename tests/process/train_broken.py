"""A module that needs something that is not there; for test_train_worker.py."""

import a_module_that_nobody_has  # noqa: F401 - it is missing on purpose
