"""Questions too large for one line, in parts.

Owns where they are cut. Invariant: the parts together ask what was asked, in the same order.
"""

import json
from collections.abc import Iterator, Mapping, Sequence

from supervisor.daemon.contracts import Json

MOST_IDS = 5000
MOST_BYTES = 4 * 1024 * 1024
_BY_IDS = frozenset({"listing", "records", "progress", "runners"})


def parts_of(question: str, arguments: Mapping[str, Json]) -> Iterator[Mapping[str, Json]]:
    """Give the arguments of each part; of most questions there is one."""
    ids, jobs = arguments.get("ids"), arguments.get("jobs")
    if question in _BY_IDS and isinstance(ids, list) and len(ids) > MOST_IDS:
        for at in range(0, len(ids), MOST_IDS):
            yield {**arguments, "ids": ids[at : at + MOST_IDS]}
    elif question == "accept" and isinstance(jobs, list) and len(jobs) > 1:
        for some in _groups(jobs):
            yield {**arguments, "jobs": some}
    else:
        yield arguments


def together(answers: Sequence[Json]) -> Json:
    """Put the answers of the parts together."""
    if len(answers) == 1:
        return answers[0]
    if all(isinstance(one, Mapping) for one in answers):
        return {key: value for one in answers for key, value in one.items()}
    return [one for answer in answers for one in answer]


def _groups(jobs: Sequence[Json]) -> Iterator[list[Json]]:
    group: list[Json] = []
    size = 0
    for one in jobs:
        length = len(json.dumps(one))
        if group and size + length > MOST_BYTES:
            yield group
            group, size = [], 0
        group.append(one)
        size += length
    yield group
