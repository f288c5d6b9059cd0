"""The job's scratch folder: for what its worker needs while it runs, and nobody after success.

Owns when it is made and when it goes: it is kept through restarts, and after a failure; after
success it is removed unless a person asked for it.
"""

import shutil
from pathlib import Path


class Scratch:
    """One job's folder. Nothing in it is looked at."""

    def __init__(self, folder: Path, *, keep: bool = False) -> None:
        self.folder = folder
        self.keep = keep

    def make(self) -> None:
        """Have it there. Raises OSError."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def purge(self) -> None:
        """Remove it after success, unless it is to be kept. Raises OSError."""
        if not self.keep and self.folder.is_dir():
            shutil.rmtree(self.folder)
