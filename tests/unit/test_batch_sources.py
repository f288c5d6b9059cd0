"""What `items` may say, what it means, and what is said where it means nothing."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.batch.pattern import files_matching, in_order
from supervisor.batch.sources import ITEM_LIMIT, CallableSource, SourceProblem, source_of


def items(text: str, cwd: Path, without: Path | None = None) -> list[object]:
    """The items that a text names, as values."""
    source = source_of(text, cwd, without)
    assert not isinstance(source, CallableSource)
    return [json.loads(item) for item in source.read()]


def problem(text: str, cwd: Path) -> str:
    """What is said of a source that cannot be read."""
    with pytest.raises(SourceProblem) as raised:
        items(text, cwd)
    return str(raised.value)


def make(folder: Path, *names: str) -> None:
    """Make files, and the folders that they are in."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")


@pytest.mark.parametrize("text", ["pkg:items", "a.b_c.d:Maker.items"])
def test_a_function_is_told_by_its_form(text: str, tmp_path: Path) -> None:
    """It is not looked for here: a child will."""
    assert source_of(text, tmp_path) == CallableSource(text)


def test_a_file_of_lines(tmp_path: Path) -> None:
    """Each line is a text as it stands; line ends, blank lines and a byte order mark are not."""
    content = "\ufeffb.jpg\r\n\n  \n a b.jpg \na.jpg\nb.jpg".encode() + b"\nc\xe9.jpg\n"
    (tmp_path / "items.txt").write_bytes(content)
    expected = ["b.jpg", " a b.jpg ", "a.jpg", "b.jpg", "c\udce9.jpg"]
    assert items("items.txt", tmp_path) == expected
    assert items(str(tmp_path / "items.txt"), Path("/")) == expected


def test_an_empty_list_has_no_items(tmp_path: Path) -> None:
    """That is no mistake: a list may be filled later."""
    make(tmp_path, "items.txt")
    (tmp_path / "items.txt").write_text("")
    assert items("items.txt", tmp_path) == []


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.NDJSON"])
def test_a_file_of_json_lines(tmp_path: Path, name: str) -> None:
    """Each line is any value; two spellings of a value are one text."""
    (tmp_path / name).write_text('{"b": 1, "a": [null, 2.5]}\n\n{"a":[null,2.5],"b":1}\n"ä"\n7\n')
    source = source_of(name, tmp_path)
    assert not isinstance(source, CallableSource)
    same = '{"a":[null,2.5],"b":1}'
    assert list(source.read()) == [same, same, '"\\u00e4"', "7"]


BAD_LINES = {
    "a.jpg": ":2:1: this is no JSON (Expecting value): 'a.jpg'",
    '{"a": 1': ":2:8: this is no JSON (Expecting ',' delimiter)",
    '{"a": NaN}': ":2: NaN is no JSON: '{\"a\": NaN}'",
    "[" * 100_000: ":2: ",
    "1e999": ":2: ",
    "9" * 5000: ":2: ",
}


@pytest.mark.parametrize("line", BAD_LINES, ids=lambda line: line[:10])
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    """File, line and what it says, shortened."""
    (tmp_path / "rows.jsonl").write_text(f"1\n{line}\n")
    said = problem("rows.jsonl", tmp_path)
    assert f"{tmp_path}/rows.jsonl{BAD_LINES[line]}" in said
    assert len(said) < 400


def test_bytes_that_are_no_text_are_refused_in_json(tmp_path: Path) -> None:
    """With the line, nearly: JSON is UTF-8."""
    (tmp_path / "rows.jsonl").write_bytes(b'1\n"\xe9"\n')
    assert "this is no UTF-8" in problem("rows.jsonl", tmp_path)
    (tmp_path / "rows.jsonl").write_bytes('"a"\n'.encode("utf-16"))
    assert "UTF-16 text; save it as UTF-8" in problem("rows.jsonl", tmp_path)


def test_a_line_without_end_is_refused(tmp_path: Path) -> None:
    """An item has a limit, which is told; one of exactly that length is an item."""
    (tmp_path / "items.txt").write_text("a" * ITEM_LIMIT + "\r\nb\n")
    assert [len(str(one)) for one in items("items.txt", tmp_path)] == [ITEM_LIMIT, 1]
    (tmp_path / "items.txt").write_text("a\n" + "b" * (ITEM_LIMIT + 1))
    assert f"items.txt:2: a line of more than {ITEM_LIMIT}" in problem("items.txt", tmp_path)


def test_one_picture_is_one_item(tmp_path: Path) -> None:
    """A file that is no text is not a list of names: it is meant itself."""
    (tmp_path / "cat.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
    assert items("cat.png", tmp_path) == ["cat.png"]


def test_a_pattern_matches_files_in_order(tmp_path: Path) -> None:
    """By name in each folder; folders, hidden files and other names are not meant."""
    make(tmp_path, "p/b.jpg", "p/a.jpg", "p/.h.jpg", "p/c.png", "p/d.jpg/x", "q/z.jpg", "a.jpg")
    assert items("p/*.jpg", tmp_path) == ["p/a.jpg", "p/b.jpg"]
    assert items("./p//*.jpg", tmp_path) == ["p/a.jpg", "p/b.jpg"]
    assert items("*/[a-b].jpg", tmp_path) == ["p/a.jpg", "p/b.jpg"]
    assert items("*.jpg", tmp_path) == ["a.jpg"]
    assert items("p/.*", tmp_path) == ["p/.h.jpg"]
    assert items("?/*/x", tmp_path) == ["p/d.jpg/x"]
    assert items(f"{tmp_path}/q/*", Path("/")) == [f"{tmp_path}/q/z.jpg"]
    assert items("../p/*.jpg", tmp_path / "q") == ["../p/a.jpg", "../p/b.jpg"]


def test_two_stars_are_any_folders(tmp_path: Path) -> None:
    """None or many, each file once; not hidden ones, and not through links that go in circles."""
    make(tmp_path, "p/b.jpg", "p/a/a.jpg", "p/a/b/c.jpg", "p/.git/d.jpg", "p/z.txt")
    (tmp_path / "p" / "a" / "loop").symlink_to("..")
    expected = ["p/b.jpg", "p/a/a.jpg", "p/a/b/c.jpg"]
    assert items("p/**/*.jpg", tmp_path) == expected
    assert items("**/**/*.jpg", tmp_path) == expected
    assert items("p/**", tmp_path) == ["p/b.jpg", "p/z.txt", "p/a/a.jpg", "p/a/b/c.jpg"]
    assert items("**/b/*", tmp_path) == ["p/a/b/c.jpg"]


def test_links_to_files_count_and_broken_ones_do_not(tmp_path: Path) -> None:
    """A folder of links to pictures elsewhere is a usual thing."""
    make(tmp_path, "far/one.jpg")
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.jpg").symlink_to("../far/one.jpg")
    (tmp_path / "p" / "b.jpg").symlink_to("nowhere")
    (tmp_path / "p" / "c.jpg").symlink_to("c.jpg")
    (tmp_path / "linked").symlink_to("p")
    os.mkfifo(tmp_path / "p" / "d.jpg")
    assert items("p/*.jpg", tmp_path) == ["p/a.jpg"]
    assert items("linked/*.jpg", tmp_path) == ["linked/a.jpg"]


@pytest.mark.parametrize("out", ["p/heat", "p"])
def test_the_job_s_own_results_are_no_items(tmp_path: Path, out: str) -> None:
    """Else each run would draw over what the last one drew."""
    make(tmp_path, "p/a.png", "p/heat/a.png", "p/heat/deep/b.png", "q/c.png")
    found = items("**/*.png", tmp_path, tmp_path / out)
    assert found == (["p/a.png", "q/c.png"] if out == "p/heat" else ["q/c.png"])


def test_odd_names_come_through(tmp_path: Path) -> None:
    """Bytes that are no UTF-8, newlines and quotes are part of a name."""
    names = [b"a\nb.jpg", b"c\xe9.jpg", b'd"<>#?.jpg', "ü.jpg".encode()]
    for name in names:
        (tmp_path / os.fsdecode(name)).write_text("x")
    assert [os.fsencode(str(one)) for one in items("*.jpg", tmp_path)] == sorted(names)


def test_names_beyond_memory_are_sorted_all_the_same() -> None:
    """In runs on disk, which are merged; names that hold anything but NUL stay whole."""
    names = [f"{number * 7919 % 1000}\n\udce9\r" for number in range(1000)]
    assert list(in_order(iter(names), run=33)) == sorted(names)
    stopped = in_order(iter(names), run=33)
    assert next(stopped) == min(names)
    stopped.close()


WRONG: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "no such file": (lambda _: None, "items.txt", "there is no file .*/items.txt"),
    "no match": (lambda cwd: make(cwd, "p/a.png"), "p/*.jpg", r"no file matches 'p/\*.jpg' in"),
    "no folder": (lambda _: None, "p/q/*.jpg", "there is no folder .*/p/q"),
    "a folder": (lambda cwd: (cwd / "p").mkdir(), "p/", r"is a folder\. .* write items: 'p/\*'"),
    "a pipe": (lambda cwd: os.mkfifo(cwd / "p"), "p", "is no regular file"),
    "a long name": (lambda _: None, "a" * 5000, "there is no file"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, case: str) -> None:
    """In words, with the path and, where there is one, the way out."""
    prepare, text, words = WRONG[case]
    prepare(tmp_path)
    with pytest.raises(SourceProblem, match=words):
        items(text, tmp_path)


def test_a_folder_that_cannot_be_listed_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files would be gone from the job, unseen."""
    make(tmp_path, "p/a/x.jpg", "p/b/y.jpg")
    real = os.scandir

    def refuse(path: Path) -> object:
        if str(path).endswith("p/b"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(SourceProblem, match=r"p/b cannot be listed: Permission denied"):
        items("p/**/*.jpg", tmp_path)


@pytest.mark.parametrize("name", ["items.txt", "rows.jsonl"])
def test_a_file_that_cannot_be_read_is_a_problem(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it is looked at, and when it is read."""
    make(tmp_path, name)
    source = source_of(name, tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(SourceProblem, match=rf"{name} cannot be read: Permission denied"):
        source_of(name, tmp_path)
    assert not isinstance(source, CallableSource)
    with pytest.raises(SourceProblem, match=rf"{name} cannot be read: Permission denied"):
        next(iter(source.read()))


def test_files_that_come_and_go_meanwhile_are_no_trouble(tmp_path: Path) -> None:
    """A folder that vanishes between its listing and its reading has no files."""
    make(tmp_path, "p/a/x.jpg", "p/b/y.jpg")
    found = files_matching("p/*/*.jpg", tmp_path)
    assert next(found) == "p/a/x.jpg"
    (tmp_path / "p" / "b" / "y.jpg").unlink()
    (tmp_path / "p" / "b").rmdir()
    assert list(found) == []
