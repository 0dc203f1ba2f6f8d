"""`move` reaches every tensor in a batch and leaves the rest alone; the meta device proves it on any machine."""

from __future__ import annotations

from collections import OrderedDict, UserDict, defaultdict, namedtuple
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from gradcheck_cli.drive.batches import move

META = torch.device("meta")
Pair = namedtuple("Pair", "first second")


class Typed(NamedTuple):
    inputs: Tensor
    name: str = "typed"


@dataclass(frozen=True)
class Sample:
    inputs: Tensor
    deep: dict[str, Any]
    label: str = "cat"
    length: int = field(init=False, default=0)


class BatchEncoding(UserDict[str, Any]):
    """As in transformers: a mapping that moves itself, but only its own tensors."""

    asked: Any = None

    def to(self, device: Any) -> BatchEncoding:
        moved = BatchEncoding({key: value.to(device) for key, value in self.items()})
        moved.asked = device
        return moved


class AttributeDict(dict[str, Any]):
    def __init__(self, required: str, **items: Any) -> None:
        super().__init__(items)
        self.required = required


def one() -> Tensor:
    return torch.ones(2)


@pytest.mark.parametrize(
    ("batch", "tensors_of"),
    [
        (one(), lambda moved: [moved]),
        ({"a": one(), "b": {"c": one()}}, lambda moved: [moved["a"], moved["b"]["c"]]),
        ([one(), [one()]], lambda moved: [moved[0], moved[1][0]]),
        ((one(), (one(),)), lambda moved: [moved[0], moved[1][0]]),
        (Pair(one(), [one()]), lambda moved: [moved.first, moved.second[0]]),
        (Typed(one()), lambda moved: [moved.inputs]),
        (Sample(one(), {"mask": one()}), lambda moved: [moved.inputs, moved.deep["mask"]]),
        (BatchEncoding(a=one()), lambda moved: [moved["a"]]),
        (UserDict(a=one(), b=[one()]), lambda moved: [moved["a"], moved["b"][0]]),
        (OrderedDict(a=one()), lambda moved: [moved["a"]]),
        (defaultdict(list, a=[one()]), lambda moved: [moved["a"][0]]),
        (AttributeDict("x", a=one()), lambda moved: [moved["a"]]),
        (pack_sequence([one(), torch.ones(1)]), lambda moved: [moved.data]),
        (torch.ones(3).to_sparse_coo(), lambda moved: [moved]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_tensor_is_moved_and_the_type_kept(batch: Any, tensors_of: Any) -> None:
    moved = move(batch, META)
    assert type(moved) is type(batch)
    assert [tensor.device.type for tensor in tensors_of(moved)] == ["meta"] * len(tensors_of(moved))
    assert all(tensor.device.type == "cpu" for tensor in tensors_of(batch)), "the user's own batch has changed"


def test_a_mapping_that_cannot_be_copied_becomes_a_dict() -> None:
    moved = move(MappingProxyType({"a": one()}), META)
    assert moved["a"].device == META


def test_what_is_no_tensor_stays() -> None:
    batch = ("text", 3, None, 2.5, {"names": ["a", "b"]}, frozenset({1}), b"raw", range(2), int)
    assert move(batch, META) == batch


def test_fields_and_attributes_without_tensors_stay() -> None:
    sample = Sample(one(), {})
    object.__setattr__(sample, "length", 7)  # as a __post_init__ does
    moved = move(sample, META)
    assert (moved.label, moved.length) == ("cat", 7)
    assert move(AttributeDict("x", a=one()), META).required == "x"
    assert move(defaultdict(list, a=one()), META)["missing"] == []
    assert move(BatchEncoding(a=one()), META).asked == META
    assert move(Typed(one()), META).name == "typed"


def test_a_packed_sequence_keeps_its_lengths() -> None:
    moved = move([pack_sequence([one(), torch.ones(1)])], torch.device("cpu"))[0]
    assert isinstance(moved, PackedSequence)
    assert moved.batch_sizes.tolist() == [2, 1]
