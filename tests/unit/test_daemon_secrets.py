"""What looks like a secret is not stored with a job, whichever client sent it."""

import asyncio
import json
from pathlib import Path
from typing import Any

from tests.unit.daemon_world import ANN, World, world

ENV = {"PATH": "/bin", "HF_TOKEN": "hf_1", "WANDB_API_KEY": "wb_2", "PROXY": "http://a:pw3@b"}
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
            one, two = await here.daemon.submit(ANN, asked, sent(env_keep=["HF_TOKEN"]))
            assert stored(here, one["id"]) == {"PATH", "HF_TOKEN"}
            assert stored(here, two["id"]) == {"PATH", "HF_TOKEN", "WANDB_API_KEY"}
            assert one["left_out"] == ["WANDB_API_KEY", "PROXY"]
            assert two["left_out"] == ["PROXY"]

    asyncio.run(story())


def test_no_file_of_the_daemon_holds_a_secret(tmp_path: Path) -> None:
    """Neither the queue, nor its log, nor anything on the shelf; and it is said."""

    async def story() -> None:
        async with world(tmp_path) as here:
            (told,) = await here.daemon.submit(ANN, [here.wanted("net")], sent())
            assert told["left_out"] == ["HF_TOKEN", "WANDB_API_KEY", "PROXY"]
            assert "surroundings.json" in holding(tmp_path, "/bin")
            for value in VALUES:
                assert holding(tmp_path, value) == set()

    asyncio.run(story())
