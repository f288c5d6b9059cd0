"""Which modules are imported ahead for `warm: true`."""

from pathlib import Path

import pytest

from supervisor.runner.warm_modules import OF_TRAINER, modules_of
from supervisor.spec.launch import first_launch
from supervisor.spec.load import load_job

SOURCE = "import os, numpy as np\nfrom torchvision.ops import nms\nimport digits\n"


@pytest.fixture
def trained(tmp_path):
    """Give the command of a training job with this entry."""

    def command(entry):
        path = tmp_path / "job.yaml"
        path.write_text(f'name: a\ntrain: {{entry: "{entry}", epochs: 1}}\n')
        return first_launch(load_job(path), {}).argv

    return command


@pytest.mark.parametrize("words", [("train.py",), ("-m", "train"), ("-u", "-m", "train")])
def test_a_script_is_read_for_what_it_imports(tmp_path: Path, words):
    """The slow ones alone, and torch wherever something of torch's is."""
    (tmp_path / "train.py").write_text(SOURCE)

    assert modules_of(("python", *words), tmp_path) == ("numpy", "torch", "torchvision")


@pytest.mark.parametrize(
    ("entry", "file"),
    [
        ("digits:build", "digits.py"),
        ("nets.digits:build", "nets/digits.py"),
        ("nets:Maker.build", "nets/__init__.py"),
    ],
)
def test_the_module_of_a_trainers_entry_is_read(tmp_path: Path, trained, entry, file):
    """The trainer itself is ours, and its file says nothing of the user's modules."""
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(SOURCE)

    slow = ("numpy", "torch", "torchvision", "torchvision.ops")
    assert modules_of(trained(entry), tmp_path) == (*slow, *OF_TRAINER)


def test_only_what_is_imported_for_sure_is_named_by_its_parts(tmp_path: Path, trained):
    """What stands under a condition may not exist, and would cost the job its warm start."""
    lines = [
        "from sklearn.datasets import load_digits",
        "try: from torch.absent import x",
        "except",
    ]
    (tmp_path / "digits.py").write_text("\n".join(lines) + " ImportError: pass\n")

    slow = ("sklearn", "torch", "sklearn.datasets")
    assert modules_of(trained("digits:build"), tmp_path) == (*slow, *OF_TRAINER)


def test_an_entry_that_is_not_there_needs_torch_all_the_same(tmp_path: Path, trained):
    """It may be installed; whether it exists is the worker's to say."""
    assert modules_of(trained("pkg.digits:build"), tmp_path) == ("torch", *OF_TRAINER)


def test_nothing_is_concluded_from_a_file_that_is_no_python(tmp_path: Path, trained):
    """The worker will say what is wrong with it."""
    (tmp_path / "digits.py").write_text("import torch,\n")

    assert modules_of(trained("digits:build"), tmp_path) == ("torch", *OF_TRAINER)
