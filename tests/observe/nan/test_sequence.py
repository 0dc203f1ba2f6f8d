"""Every operation of backward leads to the forward operation whose derivative it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gradcheck_cli.observe.nan.tracer import Tracer
from gradcheck_cli.tape import Operation

NODES = {
    "SqrtBackward0": "sqrt",
    "ExpBackward0": "exp",
    "LogBackward0": "log",
    "SinBackward0": "sin",
    "TanhBackward0": "tanh",
    "SigmoidBackward0": "sigmoid",
    "MulBackward0": "mul",
    "DivBackward0": "div",
    "ExpandBackward0": "expand",
    "UnfoldBackward0": "unfold",
    "PowBackward0": "pow",
}


def trace(call: Callable[[Tensor], Tensor]) -> tuple[Operation, ...]:
    """All operations of a function of a tensor and of its backward pass."""
    x = torch.linspace(0.1, 0.9, 4).requires_grad_()
    tracer = Tracer(nn.Linear(1, 1), [])
    with tracer.tracing():
        call(x).backward()
    return tracer.tape(0).operations


def forward_of(operations: tuple[Operation, ...], node: str) -> list[str]:
    """The forward operators of the operations that a kind of node ran, each once, in the order of backward."""
    found = [operations[op.forward] for op in operations if op.node == node and not op.recomputed]
    assert all(op.forward >= 0 for op in operations if op.node == node)
    return list(dict.fromkeys(f"{op.name.removeprefix('aten::')}@{op.frame.code if op.frame else ''}" for op in found))


def assert_forward(operations: tuple[Operation, ...], node: str, name: str, *marks: str) -> None:
    """The node's operations lead to operators of this name on lines that contain these marks, in order."""
    found = forward_of(operations, node)
    assert len(found) == len(marks), found
    for one, mark in zip(found, marks, strict=True):
        assert one.partition("@")[0] == name
        assert mark in one


def assert_all_lead_home(operations: tuple[Operation, ...]) -> None:
    """Nodes named after an operator lead to it."""
    for operation in operations:
        if operation.node in NODES and not operation.recomputed:
            name = operations[operation.forward].name.removeprefix("aten::").rstrip("_")
            assert name == NODES[operation.node], operation


def test_a_chain() -> None:
    operations = trace(lambda x: (x.sqrt() * x.log().exp()).sin().sum())
    assert_all_lead_home(operations)
    assert {op.node for op in operations} >= {"SqrtBackward0", "LogBackward0", "ExpBackward0", "SinBackward0"}


def test_the_same_operator_on_two_lines() -> None:
    def call(x: Tensor) -> Tensor:
        first = x.sqrt()  # one
        second = first.sqrt()  # two
        return second.sum()

    assert_forward(trace(call), "SqrtBackward0", "sqrt", "two", "one")


def test_in_place_writes_into_views() -> None:
    def call(x: Tensor) -> Tensor:
        y = x * 2
        y[:2] = y[2:].exp()  # copied
        y[1].mul_(x[0])  # scaled
        return y.log().sum()

    operations = trace(call)
    assert forward_of(operations, "CopySlices") == [
        "mul_@y[1].mul_(x[0])  # scaled",
        "copy_@y[:2] = y[2:].exp()  # copied",
    ]
    assert_forward(operations, "ExpBackward0", "exp", "copied")
    assert_forward(operations, "LogBackward0", "log", "y.log()")


def test_a_write_into_a_view_before_operations_without_gradients() -> None:
    """Its second node is numbered after the call; what runs next is not its maker."""

    def call(x: Tensor) -> Tensor:
        y = x * 2
        y[:2].mul_(x[0])  # scaled
        with torch.no_grad():
            y.exp().sin()
            x.tanh()
        return y.log().sum()

    operations = trace(call)
    assert forward_of(operations, "CopySlices") == ["mul_@y[:2].mul_(x[0])  # scaled"]
    assert_all_lead_home(operations)


def test_a_write_into_a_view_before_a_custom_function() -> None:
    def call(x: Tensor) -> Tensor:
        y = x * 2
        y[:2].mul_(x[0])  # scaled
        return Doubled.apply(y).log().sum()  # type: ignore[no-untyped-call,no-any-return]

    operations = trace(call)
    assert forward_of(operations, "CopySlices") == ["mul_@y[:2].mul_(x[0])  # scaled"]
    assert_forward(operations, "DoubledBackward", "mul", "result = x * 2")


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        result = x * 2
        return result + 0

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.mul(2)  # derivative


def test_a_custom_function() -> None:
    """Its forward pass records no graph: its node leads to the first operation inside."""

    def call(x: Tensor) -> Tensor:
        return Doubled.apply(x.sqrt()).log().sum()  # type: ignore[no-untyped-call,no-any-return]

    operations = trace(call)
    assert_all_lead_home(operations)
    assert_forward(operations, "DoubledBackward", "mul", "result = x * 2")
    derivative = next(op for op in operations if op.node == "DoubledBackward")
    assert derivative.frame is not None
    assert "# derivative" in derivative.frame.code, "its own line, not the forward one"


def test_views_that_come_next_to_it() -> None:
    """Expanding adds up in backward, so it is one that may overflow: it is not taken for what follows it."""

    def call(x: Tensor) -> Tensor:
        wide = x.sum().expand(3)  # widened
        other = torch.ones(3).tanh()
        windows = x.unfold(0, 2, 1)  # windows
        return (wide * other).sum() + windows.square().sum()

    operations = trace(call)
    assert_all_lead_home(operations)
    assert_forward(operations, "ExpandBackward0", "expand", "widened")
    assert_forward(operations, "UnfoldBackward0", "unfold", "windows")


def test_regions_without_gradients() -> None:
    def call(x: Tensor) -> Tensor:
        y = x.exp()
        with torch.no_grad():
            z = y.sqrt()
            z.add_(torch.rand(4).log())
        constant = torch.ones(4).tanh() + y.detach().sin()
        return (y.log() * z / constant).sum()

    operations = trace(call)
    assert_all_lead_home(operations)
    assert not any(op.node == "SqrtBackward0" for op in operations)


def test_double_backward() -> None:
    def call(x: Tensor) -> Tensor:
        y = (x.sqrt() * x.log()).sum()
        (slope,) = torch.autograd.grad(y, x, create_graph=True)
        return slope.square().sum()

    operations = trace(call)
    assert_all_lead_home(operations)
    of_backward = [op for op in operations if op.forward >= 0 and operations[op.forward].node]
    assert {operations[op.forward].node for op in of_backward} == {"SqrtBackward0", "LogBackward0", "MulBackward0"}


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoints(reentrant: bool) -> None:
    def block(x: Tensor) -> Tensor:
        inner = x.sqrt()  # inner
        return inner.log()

    def call(x: Tensor) -> Tensor:
        y: Tensor = checkpoint(block, x.tanh(), use_reentrant=reentrant)
        return y.exp().sum()

    operations = trace(call)
    assert_all_lead_home(operations)
    assert_forward(operations, "SqrtBackward0", "sqrt", "# inner")
    again = [op for op in operations if op.recomputed]
    assert "aten::sqrt" in {op.name for op in again}
    assert {op.phase for op in again} == {"forward"}
    assert all(not op.node and op.frame and op.frame.function.endswith("block") for op in again)
    assert {op.phase for op in operations if op.node} == {"backward"}


def test_checkpoints_in_checkpoints() -> None:
    def inner(x: Tensor) -> Tensor:
        return x.sqrt()

    def outer(x: Tensor) -> Tensor:
        y: Tensor = checkpoint(inner, x.sin(), use_reentrant=False)
        return y.log()

    operations = trace(lambda x: checkpoint(outer, x.tanh(), use_reentrant=False).sum())
    assert_all_lead_home(operations)
    assert_forward(operations, "SqrtBackward0", "sqrt", "x.sqrt()")


def test_numbers_of_an_earlier_graph() -> None:
    """The graph was begun before the trace: its nodes have no operation, and are not given another's."""
    x = torch.linspace(0.1, 0.9, 4).requires_grad_()
    early = x.sqrt()
    tracer = Tracer(nn.Linear(1, 1), [])
    with tracer.tracing():
        early.exp().sum().backward()
    found = [op for op in tracer.tape(0).operations if op.node == "SqrtBackward0"]
    assert found
    assert {op.forward for op in found} == {-1}
