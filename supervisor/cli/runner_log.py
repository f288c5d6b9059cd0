"""The runner's own log as people read it.

Owns the way from one JSON line to text. A line that is not ours is shown as it is.
"""

import json
from collections.abc import Iterator
from datetime import datetime

from supervisor.views.plain import printable
from supervisor.views.times import clock


def human_lines(line: str) -> Iterator[str]:
    """The time and the sentence of one logged event; one that has no sentence, its name."""
    try:
        fields = json.loads(line)
        at = clock(datetime.fromisoformat(fields["timestamp"]).timestamp())
        level, name, text = fields["level"], fields["event"], fields.get("text")
    except (ValueError, KeyError, TypeError, RecursionError):
        yield printable(line)
        return
    mark = "" if level == "info" else f"{level}: "
    for one in str(text or name).splitlines():
        yield f"{at}  {mark}{printable(one)}"
