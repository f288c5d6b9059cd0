"""`supervise gpus`: what a person sees of GPUs, leases and GPUs set aside."""

import json
import os
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from supervisor.cli import text
from supervisor.cli.gpus import command
from supervisor.gpu.leases import Lease, Leases, Owner, Want
from supervisor.gpu.probe import look
from supervisor.host import identity

GIB = 1 << 30
DOCUMENTED = Path(__file__).parents[3] / "docs" / "json.md"


@pytest.fixture
def leases(tmp_path, monkeypatch):
    """The leases of this test's own host."""
    folder = tmp_path / "leases"
    monkeypatch.setenv("SUPERVISE_LEASE_DIR", str(folder))
    return Leases(folder)


def owner(pid=None):
    """A runner: this process, or one that is gone."""
    mine = os.getpid()
    ticks = identity.start_ticks(mine)
    return Owner("digits-3fa2", "/state", pid or mine, ticks, identity.boot_id())


@pytest.fixture
def lease(leases):
    """Lease GPUs as a runner does; given back at the end."""
    held = []

    def take(want=None, who=None):
        got = leases.acquire(want or Want(1, None, share=False), *look(), who or owner())
        assert isinstance(got, Lease), got
        held.append(got)
        return got

    yield take
    for one in held:
        one.release()


@pytest.fixture
def gpus(leases, monkeypatch):
    """Run the verb; its result."""

    def run(*words, code=0, columns=None):
        monkeypatch.setattr(text, "columns", lambda: columns)
        result = CliRunner().invoke(command, words)
        assert result.exit_code == code, result.output
        return result

    return run


def rows(result):
    """The lines of the table below its titles, their gaps made one."""
    table = result.stdout.split("\n\n")[0].splitlines()[1:]
    return [re.sub(r" {2,}", " | ", line.strip()) for line in table]


def test_idle_gpus(fake_gpus, gpus):
    """A row each: figures with their units, free, held by nobody; no further words."""
    first, second = rows(result := gpus())
    assert first == (
        "0 | NVIDIA H200 | GPU-00000000… | 0.0/140.0 GiB | 0 % | 75/700 W | 35 °C | free | -"
    )
    assert second.startswith("1 | NVIDIA H200")
    assert len(result.stdout.splitlines()) == 3


def test_who_holds_them(fake_gpus, gpus, lease):
    """A lease by its job and runner, not by its processes; a stranger by pid, name and memory."""
    lease()
    first, second = (gpu.uuid for gpu in fake_gpus.gpus)
    fake_gpus.add_process(first, os.getpid(), 8 * GIB)
    fake_gpus.add_process(second, os.getpid(), 20 * GIB)
    fake_gpus.add_process(second, 2**22 - 1, GIB, "graphics")
    name = Path("/proc/self/comm").read_text().strip()
    leased, used = rows(result := gpus())
    assert leased.endswith(f"leased | digits-3fa2 (runner {os.getpid()})")
    assert used.endswith(
        f"used | {os.getpid()} {name} 20.0 GiB, {2**22 - 1} 1.0 GiB (display)",
    )
    assert "\n\n" not in result.stdout


def test_what_a_row_does_not_tell_stands_below(fake_gpus, gpus, lease, leases):
    """A runner that is gone, memory of nobody, a GPU set aside: each with its sentence."""
    fake_gpus.add_gpu(used=30 * GIB)
    lease(who=owner(pid=2**22 - 1))
    second = fake_gpus.gpus[1].uuid
    leases.set_aside(second, "Xid 79: the GPU has fallen off the bus", owner())
    said = gpus().stdout
    assert [row.rsplit(" | ", 2)[1] for row in rows(gpus())] == ["leased", "set aside", "used"]
    assert "runner 4194303, which is gone or in another container" in said
    assert (
        "GPU 1 (GPU-00000000…, NVIDIA H200): set aside: Xid 79: the GPU has fallen off the bus; "
        "release it with: supervise gpus --release 1"
    ) in said
    assert "GPU 2 (GPU-00000000…, NVIDIA H200): 30.0 GiB of its memory are in use" in said


def test_mig_instances_stand_below_their_gpu(fake_gpus, gpus, lease):
    """The card itself cannot be leased, which is said; its instances can."""
    card = fake_gpus.gpus[1].uuid
    instance = fake_gpus.add_instance(card)
    lease(Want(2, None, share=False))
    said = gpus()
    whole, card_row, part = rows(said)
    assert "leased" in whole
    assert "| not leasable |" in card_row
    assert part.startswith("└ NVIDIA H200 MIG 1g.18gb | MIG-")
    assert part.endswith(f"leased | digits-3fa2 (runner {os.getpid()})")
    assert json.loads(gpus("--json").stdout)["gpus"][2]["uuid"] == instance
    assert "GPU 1 (GPU-00000000…, NVIDIA H200): " in said.stdout


def test_a_narrow_terminal_cuts_the_last_column(fake_gpus, gpus, lease):
    """The table stays in its width; who holds a GPU gives way."""
    lease(Want(1, None, share=False), Owner("a-job-of-a-very-long-name" * 3, "/s", 1, 1, "b"))
    table = gpus(columns=100).stdout.split("\n\n")[0]
    assert max(map(len, table.splitlines())) <= 100
    assert "…" in table.splitlines()[1]


def test_no_driver_is_a_sentence(leases, gpus):
    """Where NVML is missing the reason is told, and that is no failure; JSON stays JSON."""
    if look()[0].gpus:
        pytest.skip("this host has a GPU and its driver")
    assert "NVML" in gpus().stdout
    told = json.loads(gpus("--json").stdout)
    assert (told["gpus"], told["driver"]) == ([], None)
    assert "NVML" in told["problem"]


def test_a_host_without_gpus(fake_driver, gpus):
    """A driver that knows no GPU is not an empty page."""
    assert gpus().stdout.strip()


def test_json(fake_gpus, gpus, lease, leases):
    """What the table shows, for programs: raw figures, null for what is not known."""
    lease(Want(1, 20 * GIB, share=True))
    second = fake_gpus.gpus[1]
    fake_gpus.add_process(second.uuid, os.getpid(), GIB)
    fake_gpus.set(second.uuid, power_mw=-1)
    leases.set_aside(second.uuid, "Xid 79", owner())
    told = json.loads(gpus("--json").stdout)
    assert told["problem"] is None
    assert told["lease_folder"] == str(leases.folder)
    first, other = told["gpus"]
    (held,) = first["leases"]
    assert (first["state"], held["job"], held["runner_pid"]) == (
        "leased", "digits-3fa2", os.getpid(),
    )  # fmt: skip
    assert (held["share"], held["memory_bytes"], held["runner_alive"]) == (True, 20 * GIB, True)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", held["since"])
    assert (other["state"], other["power_w"], other["used_bytes"]) == ("set_aside", None, GIB)
    assert other["processes"] == [
        {
            "pid": os.getpid(),
            "name": Path("/proc/self/comm").read_text().strip(),
            "kind": "compute",
            "used_bytes": GIB,
        }
    ]
    assert [one["reason"] for one in other["set_aside"]] == ["Xid 79"]
    assert "release it with" in other["why"]


def test_a_lease_folder_that_cannot_be_read_leaves_nothing_free(fake_gpus, gpus, leases):
    """Who cannot see the leases must not call a GPU free."""
    leases.folder.symlink_to("/nowhere")
    assert [row.rsplit(" | ", 2)[1] for row in rows(gpus())] == ["unknown", "unknown"]
    told = json.loads(gpus("--json").stdout)
    assert str(leases.folder) in told["problem"]
    assert str(leases.folder) in gpus("--release", "0", code=1).stderr


@pytest.mark.parametrize(
    "named", ["1", "{uuid}", "all", "{uuid:.36}", "00000000-0000-4000-8000-000000000001"]
)
def test_release(named, fake_gpus, gpus, leases):
    """By index, by uuid, by its beginning, with or without what all begin with, or all."""
    uuid = fake_gpus.gpus[1].uuid
    if named == "{uuid:.36}":
        fake_gpus.remove_gpu(fake_gpus.gpus[0].uuid)
    leases.set_aside(uuid, "Xid 79", owner())
    said = gpus("--release", named.format(uuid=uuid)).stdout
    assert said.startswith(f"{uuid} may be used again; it was set aside by job digits-3fa2 at ")
    assert said.endswith(": Xid 79\n")
    assert leases.set_asides() == []


def test_a_gpu_that_fell_off_the_bus_is_released_without_the_driver(fake_driver, gpus, leases):
    """Its record alone knows it; `--json` says what was released."""
    uuid = "GPU-deadbeef-0000"
    leases.set_aside(uuid, "Xid 79", owner())
    assert json.loads(gpus("--release", "deadbeef", "--json").stdout) == {"released": [uuid]}
    assert leases.set_asides() == []


def test_releasing_a_card_releases_its_instances(fake_gpus, gpus, leases):
    """What a person calls GPU 1 is all of it; the other GPU stays set aside."""
    first, card = (gpu.uuid for gpu in fake_gpus.gpus)
    instance = fake_gpus.add_instance(card)
    for uuid in (first, instance):
        leases.set_aside(uuid, "Xid 48", owner())
    gpus("--release", "1")
    assert [one.uuid for one in leases.set_asides()] == [first]


def test_nothing_to_release_is_no_mistake(fake_gpus, gpus):
    """A GPU that is not set aside, and `all` where none is."""
    assert gpus("--release", "0").stdout == "GPU 0 was not set aside\n"
    assert gpus("--release", "all").stdout == "no GPU is set aside\n"


@pytest.mark.parametrize("named", ["7", "GPU-ffff", "", "²"])
def test_an_unknown_gpu_is_a_mistake(named, fake_gpus, gpus):
    """Exit code 1, and the list of what there is."""
    said = gpus("--release", named, code=1).stderr
    assert f"no such GPU: {named}. There is: 0 (GPU-0000" in said


def test_a_beginning_that_several_have_is_a_mistake(fake_gpus, gpus, leases):
    """Nothing is released on a guess."""
    for gpu in fake_gpus.gpus:
        leases.set_aside(gpu.uuid, "Xid 79", owner())
    assert "may mean several GPUs" in gpus("--release", "GPU-0000", code=1).stderr
    assert len(leases.set_asides()) == 2


def test_every_key_is_documented(fake_gpus, gpus, lease, leases):
    """docs/json.md names every key that the verb prints."""
    lease()
    fake_gpus.add_process(fake_gpus.gpus[1].uuid, os.getpid())
    leases.set_aside(fake_gpus.gpus[1].uuid, "Xid 79", owner())
    known = set(re.findall(r"`(\w+)`", DOCUMENTED.read_text()))

    def keys(value):
        if isinstance(value, dict):
            return set(value).union(*map(keys, value.values()))
        return set().union(*map(keys, value)) if isinstance(value, list) else set()

    assert keys(json.loads(gpus("--json").stdout)) - known == set()
