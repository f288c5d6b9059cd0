"""How the path of a batch worker is ordered before anything of the user's is imported."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import workers.__main__
from workers.__main__ import HERE, HOME, main, settle


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Stand in the job's folder."""
    monkeypatch.chdir(tmp_path)
    return str(tmp_path)


def test_the_jobs_folder_comes_first_and_ours_last(folder: str) -> None:
    """In the place of ours, which Python put there because it was given our file."""
    path = [HERE, "/usr/lib/python"]
    settle(path)
    assert path == [folder, "/usr/lib/python", HOME]


def test_a_path_that_is_settled_stays(folder: str) -> None:
    """A warm process was settled before it was forked."""
    path = [folder, "/usr/lib/python", HOME]
    settle(path)
    assert path == [folder, "/usr/lib/python", HOME]


def test_a_place_that_the_user_gave_ours_stays(folder: str) -> None:
    """Where ours is on the path already, as in its own environment, it keeps its place."""
    path = [HERE, HOME, "/usr/lib/python"]
    settle(path)
    assert path == [folder, HOME, "/usr/lib/python"]


def test_a_safe_path_stays_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `python -P` the user does not want the folder on it."""
    monkeypatch.setattr(
        workers.__main__,
        "sys",
        SimpleNamespace(flags=SimpleNamespace(safe_path=True), modules=sys.modules),
    )
    path = ["/usr/lib/python"]
    settle(path)
    assert path == ["/usr/lib/python", HOME]


def test_an_unknown_verb_is_a_usage_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is started."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit) as left:
        main(["__main__.py"])
    assert left.value.code == 2
    assert "map|list" in capsys.readouterr().err
