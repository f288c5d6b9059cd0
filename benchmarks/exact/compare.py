"""Whether two trainings came to the same: weights, optimizer, metrics and samples, bit for bit.

Owns the comparison of two finished runs of toy.py by what they left on disk. Loads checkpoints, so
it needs torch. Floats are compared by their bits: two NaN of one kind are the same, 0.0 and -0.0
are not.
"""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.exact.faults import Course

LOGS = ("metrics.jsonl", "evaluations.jsonl")
SHOWN = 5


def differences(undisturbed: Path, disturbed: Path, course: Course) -> list[str]:
    """In what the second run differs from the first, in words; nothing is what is hoped for."""
    last = f"out/checkpoints/step-{course.steps:09d}/state.pt"
    found: list[str] = []
    for name in ("out/model.pt", last):
        found += _of_states(name, undisturbed / name, disturbed / name)
    for name in LOGS:
        found += _of_lines(name, undisturbed / "out" / name, disturbed / "out" / name)
    found += list(_wrong_steps(disturbed / "out/metrics.jsonl", course.steps))
    for rank in range(course.processes):
        found += _of_orders(f"order-{rank}.jsonl", undisturbed, disturbed)
        found += list(_missing_steps(disturbed / f"order-{rank}.jsonl", course.steps))
    return found


def steps_repeated(folder: Path) -> int:
    """How many steps the main process did more than once: the price of the faults."""
    steps = [line["step"] for line in _lines(folder / "order-0.jsonl")]
    return len(steps) - len(set(steps))


def _of_states(name: str, one: Path, other: Path) -> list[str]:
    missing = [f"{path} is not there" for path in (one, other) if not path.exists()]
    if missing:
        return missing
    trees = (torch.load(path, map_location="cpu", weights_only=True) for path in (one, other))
    return [f"{name}: {what}" for what in _of_trees("", *trees)][:SHOWN]


def _of_trees(where: str, one: Any, other: Any) -> Iterator[str]:  # noqa: ANN401 - any state
    if type(one) is not type(other):
        yield f"{where} is a {type(one).__name__} and a {type(other).__name__}"
    elif isinstance(one, dict):
        if list(one) != list(other):
            yield f"{where} has the keys {list(one)} and {list(other)}"
            return
        for key, value in one.items():
            yield from _of_trees(f"{where}.{key}", value, other[key])
    elif isinstance(one, (list, tuple)):
        if len(one) != len(other):
            yield f"{where} has {len(one)} and {len(other)} parts"
            return
        for index, (first, second) in enumerate(zip(one, other, strict=True)):
            yield from _of_trees(f"{where}[{index}]", first, second)
    elif _bits(one) != _bits(other):
        yield f"{where} differs: {_shown(one)} and {_shown(other)}"


def _bits(leaf: Any) -> object:  # noqa: ANN401 - as above
    if isinstance(leaf, torch.Tensor):
        plain = leaf.detach().contiguous().reshape(-1).view(torch.uint8)
        return leaf.dtype, leaf.shape, bytes(plain.tolist())
    return struct.pack("d", leaf) if isinstance(leaf, float) else leaf


def _shown(leaf: object) -> str:
    if isinstance(leaf, torch.Tensor):
        return f"{tuple(leaf.shape)} {leaf.flatten()[:3].tolist()}"
    return repr(leaf)[:80]


def _of_lines(name: str, one: Path, other: Path) -> Iterator[str]:
    """The first line in which two logs differ."""
    first, second = (path.read_bytes() if path.exists() else b"" for path in (one, other))
    if first == second:
        return
    pairs = enumerate(zip(first.splitlines(), second.splitlines(), strict=False), start=1)
    number, pair = next(((n, pair) for n, pair in pairs if pair[0] != pair[1]), (0, None))
    if pair is None:
        yield f"{name} has {len(first.splitlines())} and {len(second.splitlines())} lines"
    else:
        yield f"{name}:{number}: {pair[0].decode()} and {pair[1].decode(errors='replace')}"


def _wrong_steps(path: Path, steps: int) -> Iterator[str]:
    """A metrics log must have every step once, in order."""
    got = [line["step"] for line in _lines(path)]
    if got != list(range(1, steps + 1)):
        yield f"{path.name} does not have every step once: {len(got)} lines, {len(set(got))} steps"


def _missing_steps(path: Path, steps: int) -> Iterator[str]:
    missing = set(range(1, steps + 1)) - {line["step"] for line in _lines(path)}
    if missing:
        yield f"{path.name} never saw the steps {sorted(missing)[:SHOWN]}"


def _of_orders(name: str, undisturbed: Path, disturbed: Path) -> list[str]:
    """Every life of the disturbed run must have seen in a step what the other saw in it."""
    wanted = {line["step"]: line for line in _lines(undisturbed / name)}
    wrong = [
        f"{name}: step {line['step']} was {line} and not {wanted.get(line['step'])}"
        for line in _lines(disturbed / name)
        if line != wanted.get(line["step"])
    ]
    return wrong[:SHOWN]


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
