"""Fills in what a job file leaves to a preset or to its other keys.

Owns what follows from what; judges nothing, and copes with any shape of data.
Invariant: a key the user wrote is never changed.
"""

from collections.abc import Mapping
from copy import deepcopy

from supervisor.spec.batch_semantics import is_batch
from supervisor.spec.places import Where
from supervisor.spec.presets import PRESETS, Preset
from supervisor.spec.queue_sections import is_group
from supervisor.spec.train_semantics import implied, is_training, processes

Data = dict[str, object]

_SIGNS = ("heartbeat", "checkpoint", "gpu", "cpu")  # of the trainer; what it prints is for people


def complete(data: Mapping[str, object]) -> tuple[Data, dict[Where, str]]:
    """Return the data with preset and derived values in it, and where each of those came from."""
    filled: Data = deepcopy(dict(data))
    notes: dict[Where, str] = {}
    _train(filled, notes)
    preset, label = _preset(filled)
    if preset is not None:
        _merge(filled, "checkpoint", preset.checkpoint, label, notes)
        if _section(filled, "resume").get("mode") in (None, preset.resume["mode"]):
            _merge(filled, "resume", preset.resume, label, notes)
    _resume_mode(filled, notes)
    _parse(filled, notes)
    _batch(filled, notes)
    _group(filled, notes)
    return filled, notes


def _section(data: Data, name: str) -> Data:
    """Return a section of the data to write into; a throw-away where it has no such shape."""
    found = data.get(name)
    return found if isinstance(found, dict) else {}


def _preset(data: Data) -> tuple[Preset | None, str]:
    name = _section(data, "checkpoint").get("preset")
    if not isinstance(name, str):
        return None, ""
    # An unknown preset is refused by its name; any stands in for it meanwhile, so that what it
    # would have filled in is not reported as missing too.
    return PRESETS.get(name, next(iter(PRESETS.values()))), f"preset {name}"


def _merge(
    data: Data, name: str, keys: Mapping[str, object], label: str, notes: dict[Where, str]
) -> None:
    if data.get(name) is None:
        data[name] = {}
    section = _section(data, name)
    for key, value in keys.items():
        given = section.get(key)
        if key not in section:
            section[key] = deepcopy(value)
            notes[name, key] = label
        elif isinstance(value, Mapping) and isinstance(given, dict):
            # Variables add up: one of the user's does not take away what the preset needs.
            added = {entry: inner for entry, inner in value.items() if entry not in given}
            section[key] = {**given, **added}
            notes.update({(name, key, entry): label for entry in added})


def _resume_mode(data: Data, notes: dict[Where, str]) -> None:
    resume = _section(data, "resume")
    if "mode" in resume:
        return
    for key, mode in (("argv", "append"), ("env", "env")):
        if resume.get(key):
            resume["mode"] = mode
            notes["resume", "mode"] = f"because {key} is given"
            return


def _parse(data: Data, notes: dict[Where, str]) -> None:
    progress = _section(data, "progress")
    if progress.get("pattern") is not None and "parse" not in progress:
        progress["parse"] = "regex"
        notes["progress", "parse"] = "because pattern is given"


def _train(data: Data, notes: dict[Where, str]) -> None:
    if not is_training(data):
        return
    label = "because it is a training job"
    for name, keys in implied(data).items():
        _merge(data, name, keys, label, notes)
    if "liveness" not in data:
        data["liveness"] = list(_SIGNS)
        notes["liveness",] = label
    if "warm" not in data and processes(data) == 1:
        data["warm"] = True
        notes["warm",] = label
    save = _section(_section(data, "train"), "save")
    if save.get("steps") is not None and "every" not in save:
        save["every"] = None
        notes["train", "save", "every"] = "because steps is given"


def _batch(data: Data, notes: dict[Where, str]) -> None:
    if not is_batch(data):
        return
    if "warm" not in data:
        data["warm"] = True
        notes["warm",] = "because it is a batch job"
    if data.get("chunks") is None:
        data["chunks"] = {}


def _group(data: Data, notes: dict[Where, str]) -> None:
    """Let the jobs of an array be the group in which failures are counted."""
    counts = data.get("hold_after") is not None and data.get("group") is None
    if counts and data.get("array") and is_group(data.get("name")):
        data["group"] = data["name"]
        notes["group",] = "the jobs of the array"
