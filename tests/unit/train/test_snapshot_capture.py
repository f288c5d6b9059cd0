from collections import OrderedDict

import pytest
import torch
from torch import nn

from workers.train.capture import Capture


@pytest.fixture
def capture():
    """One of the CPU."""
    return Capture(torch.device("cpu"), lambda _: False)


def test_a_copy_does_not_follow_what_it_was_made_of(capture):
    """Training goes on in place while the captured state stays as it was."""
    weight = torch.ones(3)
    state = {"w": weight, "steps": [1, (2.5, "x", None, True)], "k": {1: weight * 2}}
    taken = capture.take(state).tree
    weight.add_(7)
    state["steps"].append(9)
    assert taken["w"].tolist() == [1, 1, 1]
    assert taken["steps"] == [1, (2.5, "x", None, True)]
    assert taken["k"][1].tolist() == [2, 2, 2]


def test_the_next_capture_uses_the_same_memory(capture):
    """A capture of the same state allocates no second time, and has the new values."""
    weight = torch.zeros(1000)
    first = capture.take({"w": weight}).tree["w"].data_ptr()
    weight.fill_(5)
    second = capture.take({"w": weight}).tree["w"]
    assert second.data_ptr() == first
    assert second[0] == 5


@pytest.mark.parametrize(
    "other", [torch.ones(4), torch.ones(3).double(), torch.ones(2, 3).t(), torch.ones(())]
)
def test_what_changed_its_form_gets_memory_of_its_own(capture, other):
    """Shape, type and strides of a captured tensor are those of the tensor."""
    capture.take({"w": torch.zeros(3, 2)})
    taken = capture.take({"w": other}).tree["w"]
    assert torch.equal(taken, other)
    assert (taken.dtype, taken.stride()) == (other.dtype, other.stride())


def test_tied_weights_are_copied_once_and_parted_when_they_part(capture):
    """A shared tensor is saved once; as soon as it is two, both have their own values."""
    weight = torch.zeros(10)
    taken = capture.take({"a": weight, "b": weight})
    assert taken.tree["a"] is taken.tree["b"]
    assert taken.size_bytes == 40
    parted = capture.take({"a": weight, "b": weight + 1}).tree
    assert (parted["a"][0], parted["b"][0]) == (0, 1)


def test_a_models_state_can_be_loaded_from_its_copy(capture):
    """The order of the tensors and the versions of the modules come along."""
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    state = model.state_dict()
    taken = capture.take(state).tree
    assert type(taken) is OrderedDict
    assert list(taken) == list(state)
    assert taken._metadata == state._metadata
    model.load_state_dict(taken)


def test_sparse_and_empty_tensors_are_captured(capture):
    """What has no plain memory of its own is copied all the same."""
    sparse = torch.eye(3).to_sparse()
    taken = capture.take({"s": sparse, "e": torch.zeros(0, 4)}).tree
    assert torch.equal(taken["s"].to_dense(), torch.eye(3))
    assert taken["e"].shape == (0, 4)


def test_a_parameter_is_captured_as_a_plain_tensor(capture):
    """No graph and no parameter reaches a checkpoint."""
    taken = capture.take({"w": nn.Parameter(torch.ones(2)) * 2}).tree["w"]
    assert type(taken) is torch.Tensor
    assert not taken.requires_grad
