"""What the daemons of earlier versions left on disk is taken over by this one, for ever."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from supervisor.journal import Journal
from supervisor.spec.frozen import thaw
from tests.e2e.conftest import READER
from tests.e2e.daemon_host import Host
from tests.golden.daemon.state import copied

VERSIONS = ("v1",)
ENDED = {
    "succeeds": "succeeded",
    "fails": "failed",
    "sweep": "succeeded",
    "first": "failed",
    "stops": "stopped",
}


@pytest.fixture(params=VERSIONS)
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
    """A copy of what that version left, and no daemon yet."""
    made = Host(tmp_path, READER)
    copied(request.param, made.state_dir, made.folder)
    yield made
    made.clean_up()


def listed(host: Host) -> dict[str, dict[str, object]]:
    """Each job by its id, as `ps` has it."""
    return {one["id"]: one for one in json.loads(host.read("ps"))}


def test_every_job_is_where_it_was(host: Host) -> None:
    """The ended ones are ended, with their causes, values and keys; the group is still held."""
    host.start()
    jobs = listed(host)
    assert len(jobs) == 9
    found = {str(one["name"]): one["state"] for one in jobs.values() if one["phase"] == "ended"}
    assert found == ENDED
    stopped, succeeded = (
        next(id_ for id_, one in jobs.items() if one["name"] == name)
        for name in ("stops", "succeeds")
    )
    assert [one["cause"] for one in host.show(stopped)["attempts"]] == ["stopped"]
    assert host.submit("succeeds", "--key", "nightly") == succeeded
    second = next(one for one in jobs.values() if one["name"] == "second")
    assert "held" in str(second["waits"])
    assert values(host, "sweep") == [{"lr": "0.1"}, {"lr": "0.01"}]


def values(host: Host, name: str) -> list[dict[str, str]]:
    """What the jobs of an array were given, as this version understands what they were."""
    journal = Journal.open_existing(host.state_dir)
    assert journal is not None
    with closing(journal):
        return [dict(thaw(one.spec).values) for one in journal.jobs() if one.name == name]


def test_who_ran_resumes_and_who_waited_follows(host: Host) -> None:
    """The host has been down since; `waits` waits for `runs`, and both come to their ends."""
    host.start("--cpus", "1")
    ids = {str(one["name"]): id_ for id_, one in listed(host).items()}
    host.until(lambda: len(host.show(ids["runs"])["attempts"]) == 2)
    assert "runs" in str(listed(host)[ids["waits"]]["waits"])
    for name in ("runs", "waits"):
        host.go_on(name)
    assert host.code("wait", ids["runs"], ids["waits"]) == 0
    causes = [one["cause"] for one in host.show(ids["runs"])["attempts"]]
    assert causes == ["host_rebooted", "completed"]
    assert [one["cause"] for one in host.show(ids["waits"])["attempts"]] == ["completed"]


def test_its_jobs_may_be_resumed_and_its_group_released(host: Host) -> None:
    """A person goes on with them under the new version."""
    host.start()
    ids = {str(one["name"]): id_ for id_, one in listed(host).items()}
    for name in ("runs", "waits", "stops"):
        host.go_on(name)
    host.ok("resume", ids["stops"])
    host.ok("resume", "--group", "nights")
    assert host.code("wait", ids["stops"], ids["second"]) == 0
    assert [one["cause"] for one in host.show(ids["stops"])["attempts"]] == ["stopped", "completed"]
