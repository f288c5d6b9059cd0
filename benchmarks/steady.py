"""The worker of the footprint benchmark: talks, saves, and does no work at all.

A line of progress ten times a second, every few seconds a checkpoint as torch writes it: a zip of
stored entries with their CRC. Ends by itself: a benchmark that is killed leaves it behind for
minutes at most.
"""

import os
import sys
import time
import zipfile
from pathlib import Path

LINE_EVERY_S = 0.1
CHECKPOINT_EVERY_LINES = 30
CHECKPOINT_BYTES = 1 << 20
LIFE_S = 300.0


def save(path: Path) -> None:
    """Write one checkpoint under its final name at once."""
    temporary = path.with_suffix(".tmp")
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}q\x00.")
        archive.writestr("archive/version", b"3\n")
        archive.writestr("archive/data/0", os.urandom(CHECKPOINT_BYTES))
    temporary.replace(path)


def main(folder: Path) -> None:
    """Tick until the time is over."""
    folder.mkdir(parents=True, exist_ok=True)
    total = round(LIFE_S / LINE_EVERY_S)
    for step in range(1, total + 1):
        time.sleep(LINE_EVERY_S)
        print(f"step {step}/{total} loss {1 / step:.4f} 10.0 it/s", flush=True)
        if step % CHECKPOINT_EVERY_LINES == 0:
            save(folder / f"ckpt-{step:06d}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
