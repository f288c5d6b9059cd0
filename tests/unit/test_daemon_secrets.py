"""What looks like a secret is not stored with a job, whichever client sent it."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from supervisor.daemon import intake, shelving
from supervisor.daemon.contracts import Unacceptable
from supervisor.daemon.intake import Around
from tests.unit.daemon_world import ANN, World, until, world

ENV = {"PATH": "/bin", "HF_TOKEN": "hf_1", "WANDB_API_KEY": "wb_2", "PROXY": "http://a:pw3@b"}
SECRETS = ("HF_TOKEN", "PROXY", "WANDB_API_KEY")
PARTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nothing": ({}, {"umask": 0o022}),
    "empty": ({"env": {}, "limits": {}}, {"umask": 0o022, "limits": {}}),
    "env": ({"env": {"A": "b"}}, {"env": {"A": "b"}, "umask": 0o022}),
    "umask": ({"umask": 0}, {"umask": 0}),
    "secrets": ({"env": {"HF_TOKEN": "hf_1"}, "umask": 7}, {"env": {}, "umask": 7}),
}
VALUES = ("hf_1", "wb_2", "pw3")


def sent(**more: Any) -> dict[str, Any]:
    """Surroundings of a client that filters nothing."""
    return {"env": ENV, "umask": 18, "limits": {}, **more}


def stored(here: World, job: str) -> set[str]:
    """The variables that a job's runner gets."""
    kept = here.shelf(ANN).path / "jobs" / job / "surroundings.json"
    return set(json.loads(kept.read_text())["env"])


def holding(folder: Path, value: str) -> set[str]:
    """The names of the files that hold this text."""
    files = [one for one in folder.rglob("*") if one.is_file()]
    return {one.name for one in files if value.encode() in one.read_bytes()}


def test_only_what_is_named_is_stored(tmp_path: Path) -> None:
    """Named by the request for all of its jobs, or by a job for itself; the answer tells."""

    async def story() -> None:
        async with world(tmp_path) as here:
            asked = [here.wanted("one"), here.wanted("two", env_keep=["WANDB_API_KEY"])]
            told = await here.daemon.submit(ANN, asked, sent(env_keep=["HF_TOKEN"]))
            one, two = told["jobs"]
            assert stored(here, one["id"]) == {"PATH", "HF_TOKEN"}
            assert stored(here, two["id"]) == {"PATH", "HF_TOKEN", "WANDB_API_KEY"}
            assert told["left_out"] == ["PROXY", "WANDB_API_KEY"]

    asyncio.run(story())


def test_no_file_of_the_daemon_holds_a_secret(tmp_path: Path) -> None:
    """Neither the queue, nor its log, nor anything on the shelf: at no time, and it is said."""

    async def story() -> None:
        async with world(tmp_path) as here:
            gate = here.shelf(ANN).hold("accept")
            submitting = asyncio.ensure_future(
                here.daemon.submit(ANN, [here.wanted("net")], sent())
            )
            await gate.reached.wait()
            assert "queue.sqlite-wal" in holding(tmp_path, "/bin")
            assert [one for value in VALUES for one in holding(tmp_path, value)] == []
            gate.open()
            assert (await submitting)["left_out"] == ["HF_TOKEN", "PROXY", "WANDB_API_KEY"]
            assert "surroundings.json" in holding(tmp_path, "/bin")
            assert [one for value in VALUES for one in holding(tmp_path, value)] == []

    asyncio.run(story())


def test_what_was_left_out_is_told_again(tmp_path: Path) -> None:
    """To who lost the answer, and asks with the same key."""

    async def story() -> None:
        async with world(tmp_path) as here:
            asked = [here.wanted("net", key="nightly")]
            told = [await here.daemon.submit(ANN, asked, sent()) for _ in range(2)]
            assert [one["jobs"][0]["new"] for one in told] == [True, False]
            assert told[0]["left_out"] == told[1]["left_out"] == sorted(SECRETS)

    asyncio.run(story())


def test_surroundings_need_not_be_whole(tmp_path: Path) -> None:
    """The API takes them so: what is missing is what the runner is given, but for the umask."""

    async def story() -> None:
        async with world(tmp_path) as here:
            for name, (given, kept) in PARTS.items():
                answer = await here.daemon.submit(ANN, [here.wanted(name)], given)
                folder = here.shelf(ANN).path / "jobs" / answer["jobs"][0]["id"]
                assert json.loads((folder / "surroundings.json").read_text()) == kept

    asyncio.run(story())


def test_jobs_that_keep_the_same_share_one_text() -> None:
    """Names that are in no environment make no difference, however many there are."""
    around = Around(sent())
    texts = [around.stored([f"X{number}", "HF_TOKEN"]) for number in range(100)]
    assert len({id(one) for one in texts}) == 1
    assert json.loads(texts[0])["env"] == {"PATH": "/bin", "HF_TOKEN": "hf_1"}
    assert "env_keep" not in json.loads(texts[0])


def test_a_thousand_copies_of_a_large_environment_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each job has its own on the disk; whoever needs so many submits them in parts."""
    monkeypatch.setattr(intake, "MOST_BYTES", 10_000)

    async def story() -> None:
        async with world(tmp_path) as here:
            large = {"env": {"PATH": "x" * 3000}, "umask": 18, "limits": {}}
            with pytest.raises(Unacceptable, match="Submit fewer jobs at once"):
                await here.daemon.submit(ANN, [here.wanted(f"job-{n}") for n in range(4)], large)
            assert here.on_disk() == []
            await here.daemon.submit(ANN, [here.wanted("job")], large)

    asyncio.run(story())


def test_the_queue_soon_forgets_what_the_shelf_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its log too, without another submission: what is named is kept in one place alone."""
    monkeypatch.setattr(shelving, "EMPTY_S", 0.01)

    async def story() -> None:
        async with world(tmp_path) as here:
            for name in ("one", "two"):
                await here.daemon.submit(ANN, [here.wanted(name)], sent(env_keep=["HF_TOKEN"]))
            await until(lambda: holding(tmp_path, "hf_1") == {"surroundings.json"})

    asyncio.run(story())
