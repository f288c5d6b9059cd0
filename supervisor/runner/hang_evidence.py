"""What is written down about a hung worker before it is killed.

Owns the folder `hang/` of an attempt: its processes, its GPUs, the end of its output; the stacks
are beside it. Invariant: all of it is bounded, and nothing that fails keeps a worker from being
killed.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from supervisor.process import Child
from supervisor.runner.disk import DiskThread
from supervisor.runner.home import AttemptFolder
from supervisor.runner.process_table import process_table
from supervisor.runner.stacks import save_stacks, tree_of

TAIL_LINES = 200
TAIL_BYTES = 256 * 1024
WRITE_S = 3.0  # a disk that does not answer


async def save_evidence(
    child: Child,
    folder: AttemptFolder,
    gpu_lines: Sequence[str] = (),
    pids: Sequence[int] = (),
    log: Path | None = None,
) -> bool:
    """Write everything there is to know of a worker that hangs; whether it is unharmed.

    `pids` are its tree, the main process first, where it is known better than by descent.
    `gpu_lines` is what its GPUs showed, in lines for people. `log` is its output, where that is not
    in its folder.
    """
    tree = pids or tree_of(child.pid)
    # The stacks last: getting them may cost the worker its life.
    texts = {folder.processes: await process_table(tree), folder.gpu: list(gpu_lines)}
    thread = DiskThread()
    with suppress(TimeoutError, OSError):
        async with asyncio.timeout(WRITE_S):
            await thread.run(_write, folder, texts, log or folder.log)
    thread.close()
    return await save_stacks(child, folder.stack, tree)


def _write(folder: AttemptFolder, texts: dict[Path, list[str]], log: Path) -> None:
    folder.hang.mkdir(exist_ok=True)
    for path, lines in texts.items():
        if lines:
            path.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="replace")
    folder.tail.write_bytes(_tail(log))


def _tail(log: Path) -> bytes:
    """The last lines of the output, as the worker wrote them."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        return b"".join(file.read(TAIL_BYTES).splitlines(keepends=True)[-TAIL_LINES:])
