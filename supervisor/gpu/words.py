"""How a GPU and what is on it are called in a sentence.

Owns the wording that leases, the gate and the command line share. A text that came out of a file
which others may write is made `plain` before it is repeated.
"""

import time
from pathlib import Path

from supervisor.gpu.model import Gpu, GpuProcess

GIB = 1 << 30
SHOWN = 12  # of a uuid: its kind and the first eight digits, unique among the GPUs of a host
LONGEST = 200


def gib(count: float) -> str:
    """Bytes as GPU memory is spoken of: 20.1 GiB."""
    return f"{count / GIB:.1f} GiB"


def short_uuid(uuid: str) -> str:
    """The beginning of a uuid, marked as such."""
    return uuid if len(uuid) <= SHOWN else f"{uuid[:SHOWN]}…"


def label(gpu: Gpu) -> str:
    """`GPU 1 (GPU-ab12cd34…, A100)`."""
    kind = "GPU" if gpu.parent is None else "MIG instance of GPU"
    return f"{kind} {gpu.index} ({short_uuid(gpu.uuid)}, {gpu.name})"


def handle(gpu: Gpu) -> str:
    """What to type for a GPU: its index; of a MIG instance, which has none, the uuid."""
    return str(gpu.index) if gpu.parent is None else gpu.uuid


def process(one: GpuProcess) -> str:
    """`process 4711 (python, 20.1 GiB)`."""
    known = [process_name(one.pid), "" if one.used_bytes is None else gib(one.used_bytes)]
    more = ", ".join(filter(None, known))
    return f"process {one.pid} ({more})" if more else f"process {one.pid}"


def process_name(pid: int) -> str:
    """The name of a process; empty where it cannot be seen (another container's)."""
    try:
        return plain((Path("/proc") / str(pid) / "comm").read_text(errors="replace").strip())
    except OSError:
        return ""


def since(at_s: float) -> str:
    """Local time of day, with the date where that is not today's."""
    then, today = time.localtime(at_s), time.localtime()
    return time.strftime("%H:%M" if then[:3] == today[:3] else "%Y-%m-%d %H:%M", then)


def plain(text: str) -> str:
    """The text in one line of bounded length, without anything that would steer a terminal."""
    return "".join(one if one.isprintable() else "?" for one in text[:LONGEST])
