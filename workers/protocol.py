"""The contract between supervisor and worker: names in the environment, and the launch message.

Owns the words both sides must agree on; does no I/O and decides nothing. Invariant: every value is
bytes without NUL, so a path, an argument or a variable of any encoding crosses unchanged.

The launch message and its answer are fields `name=value`, each ended by NUL; one empty field ends
the whole. A name may repeat (`arg`, `env`) and then keeps its order. JSON would be as good, but its
import alone costs a starting launcher more than everything else it does.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

PROTOCOL_VERSION = 1

# What runs a built-in worker; named by its file, as the job's interpreter may not know the package.
WORKERS_FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "__main__.py")  # noqa: PTH100, PTH118, PTH120 - pathlib is slow to import

ENV_JOB = "SUPERVISE_JOB"  # name of the job
ENV_OWNER = "SUPERVISE_OWNER"  # job and state folder, by which a later runner finds what is left
ENV_ATTEMPT = "SUPERVISE_ATTEMPT"  # number of the attempt, from 1
ENV_RESUME_PATH = "SUPERVISE_RESUME_PATH"  # checkpoint to resume from; absent on a first start
ENV_RESUME_STEP = "SUPERVISE_RESUME_STEP"  # its step
ENV_SESSION = "SUPERVISE_SESSION"  # Unix socket of the attempt's session; reports.py
ENV_CHECKPOINTS = "SUPERVISE_CHECKPOINTS"  # folder of the disk tier; absent: the job has none
ENV_MEMORY_TIER = "SUPERVISE_MEMORY_TIER"  # folder of the memory tier; absent: there is none
ENV_MEMORY_BUDGET = "SUPERVISE_MEMORY_BUDGET"  # bytes that the memory tier may hold, decimal
ENV_SCRATCH = "SUPERVISE_SCRATCH"  # folder for what nobody needs after success

# Marks every process of a worker, however far it fled: a chain joined by "/", outermost first,
# because a worker may itself hold isolated children. One of the marks is enough to belong.
ENV_TREE = "SUPERVISE_TREE"

# Fields of the launch message. What a worker must be given before it runs becomes one more field
# here and one more step in launch.py.
LAUNCH_VERSION = b"version"
LAUNCH_CWD = b"cwd"  # absolute folder
LAUNCH_OUTPUT = b"output"  # absolute file for stdout and stderr; absent: inherit them
LAUNCH_ARG = b"arg"  # one word of the command, in order
LAUNCH_ENV = b"env"  # one `NAME=value` of the whole environment
LAUNCH_CGROUP = b"cgroup"  # one cgroup.procs file to enter by
LAUNCH_OOM_SCORE_ADJ = b"oom_score_adj"  # decimal
LAUNCH_CPU = b"cpu"  # one processor it may run on, decimal; absent: all that the parent may use
LAUNCH_LIMIT = b"limit"  # `nofile=N`, `core=0`, `core=hard`
LAUNCH_TRACER = b"tracer"  # pid that may ptrace it, where only ancestors may

# A message that comes before the launch message, any number of times; the last one counts. It makes
# the launcher a guard: when its parent dies, it ends the tree that these name, and leaves.
GUARD_MARK = b"guard"  # the tree's mark; empty: guard nothing any more
GUARD_MAIN = b"main"  # `PID START_TICKS` of its main process; may be absent
GUARD_CGROUP = LAUNCH_CGROUP  # one cgroup.procs file of the tree

# Fields of the launcher's answer. `exec` alone, then the end of the stream: the worker runs.
ANSWER_EXEC = b"exec"  # everything is prepared; the exec comes next
ANSWER_STAGE = b"stage"  # what failed, one of STAGES
ANSWER_ERRNO = b"errno"  # the kernel's reason, decimal
ANSWER_PATH = b"path"  # the file or folder it was about

STAGES = ("prctl", "message", "cgroup", "limit", "chdir", "output", "exec")

Field = tuple[bytes, bytes]


def encode(fields: Iterable[Field]) -> bytes:
    """Return the bytes of a message. The values must not hold NUL: the caller has checked."""
    return b"".join(b"%s=%s\0" % field for field in fields) + b"\0"


def decode(message: bytes) -> list[Field]:
    """Return the fields of a message, or of the part of one that arrived."""
    pairs = (field.partition(b"=") for field in message.split(b"\0") if field)
    return [(name, value) for name, _, value in pairs]


# --- Batch channel: the private line between runner and batch worker ------------------------------
#
# A Unix stream socket; one line a message, its first word says what it is. Numbers are items',
# from 1 in their job. All of it is ASCII: JSON escapes the rest. messages.py, lines.py.
#
#   runner → worker   setup {json}, the first line; do {json}; leave; end of stream: exit at once
#   worker → runner   ready {json} or unready {json}; then
#                     begin N...          sent in full before the call begins
#                     done N MS {result}  the item is finished, its outputs are durable
#                     failed N,N... {json}
#                     memory {json}
#                     left                the last line; it exits 0 then, else it failed
#
# A listing of items is given `setup` and answers with one canonical text a line, then `end`.

ENV_CHANNEL_FD = "SUPERVISE_CHANNEL_FD"  # number of the worker's inherited end
LINE_LIMIT_BYTES = 16 * 1024 * 1024  # of one line, without its newline
LISTING_END = b"end"

FAILURE_KINDS = (
    "error",
    "bad_config",  # the entry is not what it should be
    "bad_result",  # no JSON, another length than the batch, an output that was never written
    "cuda_oom",
    "cuda_error",
    "disk_full",
    "memory",
    "non_finite",  # of a training
    "bad_checkpoint",  # it cannot be loaded, although its bytes are those that were written
    "nccl",
    "dataloader",
)


# Made once: json.dumps makes another for each call, which takes longer than the encoding.
_CANONICAL = json.JSONEncoder(
    ensure_ascii=True, separators=(",", ":"), sort_keys=True, allow_nan=False
)


def canonical(value: object) -> str:
    """Return the one JSON text of an item: sorted, compact, ASCII. Raises ValueError, TypeError."""
    return _CANONICAL.encode(value)


# --- Zygote: what its control socket carries ------------------------------------------------------
#
# A Unix seqpacket socket: each packet is one message of fields, as above; all of them are short.
#
#   runner → zygote   setup, once: module..., preload and args, path0, prefix...
#                     fork with parent, chain, maybe channel, and by SCM_RIGHTS the launcher's
#                     end of its socket, then the channel
#   zygote → runner   ready, or refused; then forked or refused, each with the number of its fork
#
# The first that a forked launcher writes on its own socket is `pid`; from there on it is spoken to
# like any other launcher.

ZYGOTE_MODULE = b"module"  # one to import, in order
ZYGOTE_PRELOAD = b"preload"  # `pkg:Class`, whose preload(**args) builds what the children share
ZYGOTE_ARGS = b"args"  # the JSON object of its arguments
ZYGOTE_PATH0 = b"path0"  # where the job's own program has its modules; absent: nowhere
ZYGOTE_PREFIX = b"prefix"  # interpreter and flags: the words of a command that can be run warm
ZYGOTE_READY = b"ready"
ZYGOTE_REFUSED = b"refused"  # the reason, in words, UTF-8
ZYGOTE_FORK = b"fork"  # number of the request, decimal
ZYGOTE_PARENT = b"parent"  # pid of the runner, who will be the launcher's parent
ZYGOTE_CHAIN = b"chain"  # the launcher's value of ENV_TREE until it becomes the worker
ZYGOTE_CHANNEL = b"channel"  # the number that the second descriptor must have
ZYGOTE_FORKED = b"forked"
ZYGOTE_PID = b"pid"  # the launcher's, decimal
