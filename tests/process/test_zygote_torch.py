"""A warm torch computes what a cold one computes, to the bit, with as many threads."""

import json

import pytest

from supervisor.process.limits import Limits
from supervisor.process.zygote import Preload, ZygoteFailed
from tests.process.zygotes import Home, drive, home  # noqa: F401 -- a fixture, by its name

pytest.importorskip("torch", reason="the extra `train` is not installed")

# Large enough for every parallel path: convolution, matrix product, reduction.
TRAINS = """
import hashlib, json, os, random, sys
import numpy, torch
from torch import nn

chance = [random.random(), numpy.random.rand(), torch.rand(1).item(), torch.initial_seed()]
torch.manual_seed(0)
losses = []
model = nn.Sequential(
    nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 30 * 30, 10)
)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
for step in range(4):
    images, labels = torch.randn(16, 3, 32, 32), torch.randint(10, (16,))
    loss = nn.functional.cross_entropy(model(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item().hex())
digest = hashlib.sha256()
for tensor in model.state_dict().values():
    digest.update(tensor.numpy().tobytes())
square = numpy.random.default_rng(0).standard_normal((400, 400))
digest.update((square @ square).tobytes())
threads = [torch.get_num_threads(), torch.get_num_interop_threads()]
threads.append(len(os.listdir("/proc/self/task")))
print(json.dumps({"losses": losses, "weights": digest.hexdigest(), "threads": threads}))
print(json.dumps(chance))
"""
SETTINGS = {
    "as it is": ({}, ()),
    "one processor": ({}, (0,)),
    "one thread": ({"OMP_NUM_THREADS": "1"}, ()),
    "three threads on one processor": ({"OMP_NUM_THREADS": "3"}, (0,)),
    "one thread in MKL": ({"MKL_NUM_THREADS": "1"}, ()),
    "one thread in OpenBLAS": ({"OPENBLAS_NUM_THREADS": "1"}, ()),
}


@pytest.mark.parametrize(("settings", "cpus"), SETTINGS.values(), ids=SETTINGS)
def test_a_training_is_the_same_to_the_bit(
    settings: dict[str, str],
    cpus: tuple[int, ...],
    home: Home,  # noqa: F811 -- the fixture
) -> None:
    """Losses, final weights and the number of threads; only unseeded chance differs."""
    home.write("train.py", TRAINS)
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    env = {name: value for name, value in home.env.items() if name not in names}

    async def main() -> None:
        like = home.command("train.py", env={**env, **settings}, limits=Limits(cpus=cpus))
        (cold_how, cold), (warm_how, warm) = await home.both(["torch", "numpy"], like)
        assert cold_how.ok, cold
        assert warm_how.ok, warm
        assert json.loads(warm.splitlines()[0]) == json.loads(cold.splitlines()[0])
        pairs = zip(*(json.loads(one.splitlines()[1]) for one in (cold, warm)), strict=True)
        assert [one == other for one, other in pairs] == [False] * 4

    drive(main)


def test_chance_is_each_workers_own(home: Home) -> None:  # noqa: F811 -- the fixture
    """Two workers of one zygote draw different numbers, unless a module has seeded torch."""
    home.write("seeds.py", "import torch; torch.manual_seed(7)")
    text = (
        "import random, numpy as n, torch; print(random.random(), n.random.rand(), torch.rand(1))"
    )
    command = home.command("-c", text)

    async def main() -> None:
        for modules in (["torch", "numpy.random"], ["seeds", "numpy.random"]):
            zygote = await home.zygote(*modules, like=command)
            runs = [(await home.run(command, await zygote.fork()))[1].split() for _ in range(2)]
            same = [one == other for one, other in zip(*runs, strict=True)]
            assert same == [False, False, modules[0] == "seeds"]
            await zygote.close()

    drive(main)


def test_a_model_built_ahead(home: Home) -> None:  # noqa: F811 -- the fixture
    """A preload may build a large model: it starts no thread, and children compute with all."""
    home.write(
        "models.py",
        "import torch\nclass Big:\n    @classmethod\n    def preload(cls, size):\n"
        "        cls.model = torch.nn.Linear(size, size)\n"
        "        cls.norm = float(cls.model(torch.ones(64, size)).norm())\n",
    )
    text = (
        "import torch; from models import Big\n"
        "loss = Big.model(torch.ones(64, 2000)).norm(); loss.backward()\n"
        "print(float(loss) - Big.norm < 1e-3, torch.get_num_threads())"
    )

    async def main() -> None:
        asks = home.command("-c", "import torch; print(torch.get_num_threads())")
        cold = await home.run(asks, None)
        command = home.command("-c", text)
        zygote = await home.zygote(like=command, preload=Preload("models:Big", {"size": 2000}))
        first, second = await zygote.fork(), await zygote.fork()
        assert (await home.run(command, first))[1] == f"True {cold[1]}"
        assert (await home.run(command, second))[1] == f"True {cold[1]}"
        await zygote.close()

    drive(main)


def test_a_backward_ahead_is_refused(home: Home) -> None:  # noqa: F811 -- the fixture
    """A module whose import trains something has started threads: told, not forked."""
    home.write(
        "trains.py",
        "import torch\ntorch.set_num_threads(2)\n"
        "(torch.ones(2000, 2000, requires_grad=True) @ torch.ones(2000, 2000)).sum().backward()\n",
    )

    async def main() -> None:
        with pytest.raises(ZygoteFailed, match=r"threads were started .* by importing 'trains'"):
            await home.zygote("trains", like=home.command("-c", ""))

    drive(main)
