"""The contact sheet: every image with what was seen, and nothing that a file is called runs."""

import json
import os
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest

from supervisor.batch import sheet as module
from supervisor.batch.sheet import SheetTitle, write_sheet

TITLE = SheetTitle("heat", 2, 0)
NASTY = '<script>alert("1")</script>&\'#?% c\udce9.jpg'


@dataclass(frozen=True)
class Bad:
    """A quarantined item."""

    item: str
    cause: str = "signal"
    reason: str = "killed by <signal> 11"
    detail: str = ""
    attempt: int = 1


def names(folder: Path) -> list[str]:
    """What is in a folder, hidden or not."""
    return sorted(path.name for path in folder.iterdir())


class Page(HTMLParser):
    """What a browser would make of a page: elements, their attributes, and text."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(content)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.elements.append((tag, dict(attrs)))
        if tag not in {"meta", "img"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Every element ends where it should."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Collect the text that is seen."""
        self.text += data if "style" not in self.open else ""

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of all elements of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]


def line(item: object, **result: object) -> str:
    """A line of results."""
    return json.dumps({"item": item, "result": result}) + "\n"


def sheet(out: Path, lines: list[str], *bad: Bad, title: SheetTitle = TITLE) -> Page:
    """Write results and their sheet; the page."""
    (out / "results.jsonl").write_text("".join(lines))
    page = write_sheet(out, out / "results.jsonl", bad, title)
    assert page == out / "index.html"
    made = Page(page.read_text(encoding="utf-8"))
    assert made.open == []
    return made


def test_each_image_has_its_tile(tmp_path: Path) -> None:
    """Overlay, label, score and name; the class's number where it has no label."""
    page = sheet(
        tmp_path,
        [
            line("photos/astronaut.jpg", overlay="a.png", label="face", score=0.98765, ms=3),
            line("photos/cat.jpg", overlay="sub/c.png", label=None, **{"class": 7}, score=1),
        ],
    )
    images = page.all("img")
    assert [image["src"] for image in images] == ["./a.png", "./sub/c.png"]
    assert [image["loading"] for image in images] == ["lazy", "lazy"]
    assert all(image["width"] and image["height"] for image in images)
    assert images[0]["alt"] == "photos/astronaut.jpg: face"
    for seen in ("2 images", "astronaut.jpg", "face", "0.988", "class 7"):
        assert seen in page.text
    assert page.all("script") == []
    assert page.all("link") == []


def test_no_name_becomes_part_of_the_page(tmp_path: Path) -> None:
    """Tags, quotes, bytes that are no text: shown, never obeyed; the image is found."""
    page = sheet(
        tmp_path,
        [line(f"p/{NASTY}", overlay=f"{NASTY}.png", label=NASTY, score=0.5)],
        Bad(json.dumps(NASTY), detail=f"Traceback\n{NASTY}", reason=NASTY),
        title=SheetTitle(NASTY, 1, 1),
    )
    assert page.all("script") == []
    (image,) = page.all("img")
    assert unquote_to_bytes(str(image["src"])[2:]) == os.fsencode(f"{NASTY}.png")
    assert page.text.count('<script>alert("1")</script>&\'#?% c\\xe9.jpg') >= 5
    known = {"meta", "html", "head", "title", "style", "body", "header", "h1", "p", "a", "main"}
    known |= {"figure", "img", "figcaption", "span", "i", "section", "h2", "details", "summary"}
    assert {tag for tag, _ in page.elements} <= known | {"b", "pre"}


@pytest.mark.parametrize(
    "overlay", ["//evil.example/x.png", "javascript:alert(1)", "data:text/html,x", "\ud800.png"]
)
def test_an_address_stays_below_the_page(tmp_path: Path, overlay: str) -> None:
    """Whatever a worker calls its overlay, a click on it leads into the folder."""
    page = sheet(tmp_path, [line("a", overlay=overlay)])
    (link,) = page.all("a")
    assert str(link["href"]).startswith("./")
    assert ":" not in str(link["href"])


RESULTS = [
    '{"item":"a.jpg","result":null}\n',
    '{"item":{"row":1},"result":[1,2]}\n',
    '{"item":"b.jpg","result":{"overlay":7,"score":"high","label":["x"],"class":true}}\n',
    '{"item":"c.jpg","result":{"score":NaN,"overlay":""}}\n',
    '{"item":"d.jpg","result":{"score":1e400}}\n',
]


def test_any_result_is_shown_as_far_as_it_goes(tmp_path: Path) -> None:
    """A map job of the user's own may return what it likes; torn lines are left out."""
    page = sheet(tmp_path, [*RESULTS, "torn", "[]\n", "\n", "[" * 100_000])
    assert len(page.all("figure")) == len(RESULTS)
    assert page.all("img") == []
    assert page.text.count("no image") == len(RESULTS)


def test_quarantined_items_are_listed_below_with_their_reason(tmp_path: Path) -> None:
    """Cause, reason and what is known in detail, as the end of it where it is long."""
    long = "\n".join(f"line {number}" for number in range(2000))
    page = sheet(
        tmp_path,
        [line("a", overlay="a.png")],
        Bad('"bad.jpg"', detail=long),
        Bad('{"row":4}', cause="hang"),
        title=SheetTitle("heat", 1, 2),
    )
    assert "1 image, 2 quarantined" in page.text
    for seen in ("bad.jpg", "signal", "killed by <signal> 11", "line 1999", '{"row": 4}', "hang"):
        assert seen in page.text
    assert "line 5\n" not in page.text
    assert len(page.all("details")) == 1


def test_a_sheet_has_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond them it says how many there are and where to look."""
    monkeypatch.setattr(module, "ITEMS_SHOWN", 3)
    monkeypatch.setattr(module, "QUARANTINED_SHOWN", 2)
    page = sheet(
        tmp_path,
        [line(f"{number}.jpg", overlay="a.png") for number in range(9)],
        *[Bad(f'"{number}.jpg"') for number in range(5)],
        title=SheetTitle("heat", 9, 5),
    )
    assert len(page.all("img")) == 3
    assert "3 of 9 are shown; all are in results.jsonl" in page.text
    assert page.text.count("killed by") == 2
    assert "The others are in quarantine.jsonl" in page.text


def test_without_results_there_is_still_a_sheet(tmp_path: Path) -> None:
    """All items may be quarantined before the first result."""
    bad = [Bad('"a"')]
    page = write_sheet(tmp_path, tmp_path / "results.jsonl", bad, SheetTitle("heat", 0, 1))
    assert "0 images" in page.read_text()
    assert names(tmp_path) == ["index.html"]
