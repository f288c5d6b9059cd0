"""What verifying and pinning checkpoints costs, beside plain zlib.crc32 over the same bytes.

    python -m benchmarks.verify [--quick] [--json] [--folder DIR]

Peers, in turns in the same run over the same file with a warm page cache: `zlib.crc32` over bytes
already in memory (one core's ceiling), a plain read loop with crc32, `zipfile.testzip`; and for
the pin, `shutil.copyfile` + fsync. The fastest of several turns counts. `peak` is the growth of
the peak resident memory of a fresh process that does only this.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from supervisor.checkpoint import Layout, Pins, Remembered, find, look, verify

_ENTRY_BYTES: Final = 64 << 20
_BLOCK_BYTES: Final = 256 << 20
_ROUNDS: Final = 5


@dataclass(frozen=True)
class Row:
    """One measurement: seconds, GB a second, share of zlib.crc32's speed, growth of memory."""

    name: str
    seconds: float
    gb_per_s: float
    of_crc32: float
    peak_growth_mb: float | None = None


def write_archive(path: Path, size_bytes: int) -> None:
    """Write an archive shaped like torch's: stored entries, random bytes."""
    block = os.urandom(_ENTRY_BYTES)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", b"\x80\x02}q\x00.")
        archive.writestr("m/version", b"3\n")
        for number in range(max(size_bytes // _ENTRY_BYTES, 1)):
            archive.writestr(f"m/data/{number}", block)


def best_s(works: dict[str, Callable[[], object]], rounds: int = _ROUNDS) -> dict[str, float]:
    """Time works in turns, so that a busy moment hits all alike; give the fastest of each."""
    best = dict.fromkeys(works, float("inf"))
    for _ in range(rounds):
        for name, work in works.items():
            started_s = time.perf_counter()
            work()
            best[name] = min(best[name], time.perf_counter() - started_s)
    return best


def read_loop(path: Path) -> None:
    """Read a file and compute its CRC-32 in the plainest way."""
    crc32 = 0
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(1 << 20):
            crc32 = zlib.crc32(chunk, crc32)


def test_zip(path: Path) -> None:
    """Let the standard library check the archive."""
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None


def verify_here(path: Path) -> None:
    """Verify one checkpoint."""
    layout = Layout(path.parent, path.name)
    verdict = verify(find(layout).found[0], layout, worker_lives=False)
    assert verdict.ok, verdict.reason


def peak_growth_mb(path: Path) -> float:
    """Verify in a fresh process; give the growth of its peak resident memory."""
    code = (
        "import sys; from pathlib import Path; from benchmarks import verify as b;"
        "print(b.grow(Path(sys.argv[1])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def grow(path: Path) -> float:
    """Say by how many megabytes verifying raises this process's resident memory at its peak."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the peak of importing
    before = _memory_kb("VmRSS")
    verify_here(path)
    return (_memory_kb("VmHWM") - before) / 1024


def _memory_kb(field: str) -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = (line for line in status.splitlines() if line.startswith(field + ":"))
    return int(line.split()[1])


def copy_and_sync(source: Path, target: Path) -> None:
    """Copy as a script would that wants the bytes to be on the disk."""
    shutil.copyfile(source, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())
    target.unlink()


def rows(folder: Path, size_bytes: int) -> list[Row]:
    """Measure everything over one file."""
    path = folder / "ckpt_1.pt"
    write_archive(path, size_bytes)
    size_bytes = path.stat().st_size
    os.sync()  # else the disk is busy with this file while others are measured
    with path.open("rb") as file:
        block = file.read(_BLOCK_BYTES)
    turns = size_bytes / len(block)
    times = best_s(
        {
            "zlib.crc32 in memory": lambda: zlib.crc32(block),
            "read loop + crc32": lambda: read_loop(path),
            "zipfile.testzip": lambda: test_zip(path),
            "verify": lambda: verify_here(path),
        }
    )
    times["zlib.crc32 in memory"] *= turns
    layout, memory = Layout(folder, path.name), Remembered()
    found = find(layout).found[0]
    verdict = verify(found, layout, worker_lives=False)
    memory.put(found.path, found.fingerprint, verdict)
    times |= best_s({"verify, remembered": lambda: look(found, layout, memory)}, 20)
    copies: dict[str, Callable[[], object]] = {
        "copyfile + fsync": lambda: copy_and_sync(path, folder / "copy"),
        f"pin ({how_copied(folder)})": lambda: Pins(folder / "pins").pin(found, verdict),
    }
    times |= best_s(copies, 1)
    peaks = {"verify": peak_growth_mb(path)}
    ceiling_s = times["zlib.crc32 in memory"]
    return [
        Row(name, seconds, size_bytes / seconds / 1e9, ceiling_s / seconds, peaks.get(name))
        for name, seconds in times.items()
    ]


def how_copied(folder: Path) -> str:
    """Tell whether this file system clones files."""
    from supervisor.checkpoint.copying import Copying  # noqa: PLC0415 - an inner part, asked once

    source = folder / "probe"
    source.write_bytes(b"x" * 4096)
    copying = Copying(source, folder / "probe-copy", 4096)
    copying.run()
    return "reflink, fsync" if copying.cloned_bytes else "copy, fsync"


def print_table(measured: list[Row], size_bytes: int) -> None:
    """Print for a person."""
    print(f"checkpoint of {size_bytes / 1e9:.2f} GB, warm page cache")
    print(f"{'':24}{'seconds':>10}{'GB/s':>12}{'x crc32':>12}{'peak +MB':>10}")
    for one in measured:
        peak = "" if one.peak_growth_mb is None else f"{one.peak_growth_mb:.1f}"
        line = f"{one.name:24}{one.seconds:>10.5f}{one.gb_per_s:>12.2f}{one.of_crc32:>12.2f}"
        print(f"{line}{peak:>10}")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="256 MB instead of 2 GB")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--folder", type=Path, help="where to measure; default: a temporary folder")
    options = parser.parse_args()
    size_bytes = (256 << 20) if options.quick else (2 << 30)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        measured = rows(Path(folder), size_bytes)
    if options.json:
        print(json.dumps({"size_bytes": size_bytes, "rows": [asdict(one) for one in measured]}))
    else:
        print_table(measured, size_bytes)


if __name__ == "__main__":
    main()
