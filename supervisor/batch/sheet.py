"""The contact sheet: `index.html` beside the results, every image with what was seen in it.

Owns what stands on the page; page.py has its frame and style. No script, nothing from elsewhere:
the folder may be moved or put on any web server. Invariant: whatever a file is called and whatever
a worker said of it, it is shown as text and never becomes part of the page.

Both results and page are streamed. Images are fetched by the browser when they come into view, and
a tile has its size before its image is there, so that many thousands of them do no harm.
"""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from supervisor.batch.page import FOOT, head
from supervisor.batch.published import published
from supervisor.batch.quarantine import Quarantined

ITEMS_SHOWN: Final = 20_000
"""Tiles of one page. The results file has all of them."""
QUARANTINED_SHOWN: Final = 1000
_DETAIL: Final = 4000  # characters of a traceback


@dataclass(frozen=True, slots=True)
class SheetTitle:
    """What stands above the images. Counts are items."""

    name: str
    done: int
    quarantined: int


def write_sheet(
    out: Path, results: Path, quarantined: Iterable[Quarantined], title: SheetTitle
) -> Path:
    """Write `out/index.html` anew, whole or not at all; where it is.

    Lines of the results that have no image are shown without one. A line that is no JSON is left
    out: the sheet is a view, and what is wrong with the file is told where it is opened.

    Raises:
        OSError: results cannot be read, or the page not written.
    """
    page = out / "index.html"
    with published(page) as file:
        for piece in _page(results, quarantined, title):
            file.write(piece.encode("utf-8", "replace"))
    return page


def _page(results: Path, quarantined: Iterable[Quarantined], title: SheetTitle) -> Iterator[str]:
    yield head(_text(title.name), _summary(title))
    yield '<main class="tiles">\n'
    shown = 0
    for line in _lines(results):
        if shown == ITEMS_SHOWN:
            break
        tile = _tile(line)
        shown += bool(tile)
        yield tile
    yield "</main>\n"
    if shown < title.done:
        name = _text(results.name)
        yield f'<p class="more">{shown:,} of {title.done:,} are shown; all are in {name}.</p>\n'
    yield from _set_aside(quarantined, title)
    yield FOOT


def _summary(title: SheetTitle) -> str:
    images = "1 image" if title.done == 1 else f"{title.done:,} images"
    if not title.quarantined:
        return images
    return f'{images}, <a href="#quarantined">{title.quarantined:,} quarantined</a>'


def _lines(results: Path) -> Iterator[bytes]:
    if results.exists():  # it is not before the first result
        with results.open("rb") as file:
            yield from file


def _tile(line: bytes) -> str:
    try:
        told = json.loads(line)
        item, result = told["item"], told["result"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return ""
    facts = result if isinstance(result, dict) else {}
    name, seen = _name(item), _seen(facts) or "no class"
    overlay = facts.get("overlay")
    if isinstance(overlay, str) and overlay:
        address = _address(overlay)
        picture = (
            f'<a href="{address}"><img src="{address}" loading="lazy" decoding="async" '
            f'width="224" height="224" alt="{_text(f"{name}: {seen}")}"></a>'
        )
    else:
        picture = '<div class="none">no image</div>'
    return (
        f'<figure>{picture}<figcaption><span class="seen">{_text(_seen(facts))}</span>'
        f'{_score(facts)}<span class="name" title="{_text(name)}">'
        f"{_text(os.path.basename(name) or name)}</span></figcaption></figure>\n"  # noqa: PTH119 - any text
    )


def _set_aside(quarantined: Iterable[Quarantined], title: SheetTitle) -> Iterator[str]:
    if not title.quarantined:
        return
    yield f'<section id="quarantined"><h2>Quarantined <span>{title.quarantined:,}</span></h2>\n'
    for count, one in enumerate(quarantined):
        if count == QUARANTINED_SHOWN:
            yield '<p class="more">The others are in quarantine.jsonl.</p>\n'
            break
        yield _row(one)
    yield "</section>\n"


def _row(one: Quarantined) -> str:
    try:
        name = _name(json.loads(one.item))
    except (ValueError, RecursionError):
        name = one.item
    said = (
        f'<b class="name">{_text(name)}</b> <span class="cause">{_text(one.cause)}</span> '
        f"<span>{_text(one.reason)}</span>"
    )
    if not one.detail.strip():
        return f'<div class="row">{said}</div>\n'
    detail = one.detail if len(one.detail) <= _DETAIL else "…" + one.detail[-_DETAIL:]
    return f"<details><summary>{said}</summary><pre>{_text(detail)}</pre></details>\n"


def _seen(facts: dict[str, Any]) -> str:
    """What the model saw: the label of its class, or the number where it has none."""
    label, number = facts.get("label"), facts.get("class")
    if label is None or label == "":
        return "" if number is None else f"class {number}"
    return str(label)


def _score(facts: dict[str, Any]) -> str:
    score = facts.get("score")
    if isinstance(score, bool) or not isinstance(score, (int, float)):
        return ""
    share = min(max(score, 0.0), 1.0) * 100
    return (
        f'<span class="score">{score:.3g}</span>'
        f'<span class="bar"><i style="width:{share:.0f}%"></i></span>'
    )


def _name(item: object) -> str:
    return item if isinstance(item, str) else json.dumps(item, ensure_ascii=False)


def _address(path: str) -> str:
    """Give the address of a file below the page, whatever bytes its name has."""
    return "./" + quote(_bytes(path), safe="/")  # which also keeps `//host` and `data:` from it


def _text(text: str) -> str:
    """As text of the page; bytes that are no UTF-8 are made visible."""
    return escape(_bytes(text).decode("utf-8", "backslashreplace").translate(_CONTROLS))


_CONTROLS: Final = {code: " " for code in (*range(32), 127) if chr(code) not in "\n\t"}


def _bytes(text: str) -> bytes:
    """Give the bytes that a file name stands for, or, where it is no file name, nearly so."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")
