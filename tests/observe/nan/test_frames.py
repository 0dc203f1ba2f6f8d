"""Which line is named for an operation."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from colorsys import rgb_to_yiq
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradcheck_cli.observe.nan import frames
from gradcheck_cli.observe.nan.tracer import Tracer
from gradcheck_cli.tape import Frame, Operation


def trace(call: Callable[[], Any]) -> tuple[Operation, ...]:
    tracer = Tracer(nn.Linear(1, 1), [])
    with tracer.tracing():
        call()
    return tracer.tape(0).operations


def frame_of(call: Callable[[], Any], name: str) -> Frame:
    """The frame of the first operation of this name."""
    found = next(op.frame for op in trace(call) if op.name == f"aten::{name}")
    assert found is not None
    return found


@pytest.fixture
def module(tmp_path: Path) -> Callable[..., ModuleType]:
    """Import a source from a file, also from one inside a folder of installed packages."""

    def load(source: str, folder: str = "") -> ModuleType:
        path = tmp_path / folder / "mine.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))
        made = ModuleType("mine")
        exec(compile(path.read_text(), str(path), "exec"), made.__dict__)
        return made

    return load


SOURCE = """\
def one(x):
    return x * (x.sqrt() + 1)

def many(x):
    return (x.sin()
            .add(
                x.cos(),
                alpha=2,
            ))

class Model:
    def forward(self, x):
        apply = lambda value: value.tanh()
        return apply(x)

def call(function, x):
    return function(x)
"""


def test_the_expression_is_the_part_of_the_line_that_runs(module: Callable[..., ModuleType]) -> None:
    mine = module(SOURCE)
    root = frame_of(lambda: mine.one(torch.ones(2)), "sqrt")
    assert (root.location.line, root.function, root.code) == (2, "one", "return x * (x.sqrt() + 1)")
    assert root.location.file.endswith("mine.py")
    assert root.expression == ("x.sqrt()" if sys.version_info >= (3, 11) else "")
    product = frame_of(lambda: mine.one(torch.ones(2)), "mul")
    assert product.expression == ("x * (x.sqrt() + 1)" if sys.version_info >= (3, 11) else "")
    assert root.called_from is None


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 does not tell positions")
def test_a_call_over_several_lines(module: Callable[..., ModuleType]) -> None:
    mine = module(SOURCE)
    sine = frame_of(lambda: mine.many(torch.ones(2)), "sin")
    assert (sine.location.line, sine.expression) == (5, "x.sin()")
    cosine = frame_of(lambda: mine.many(torch.ones(2)), "cos")
    assert (cosine.location.line, cosine.expression) == (7, "x.cos()")
    added = frame_of(lambda: mine.many(torch.ones(2)), "add")
    assert (added.location.line, added.code) == (6, ".add(")
    assert added.expression == "", "without what it is called on it would be another expression"


def test_functions_by_their_qualified_names(module: Callable[..., ModuleType]) -> None:
    found = frame_of(lambda: module(SOURCE).Model().forward(torch.ones(2)), "tanh")
    assert found.function.endswith("<lambda>")
    assert found.location.line == 13


def test_a_library_line_with_the_users_line_that_led_there(module: Callable[..., ModuleType]) -> None:
    library = module(SOURCE, "lib/python3/site-packages/library")
    found = frame_of(lambda: library.one(torch.ones(2)), "sqrt")
    assert "site-packages" in found.location.file
    assert found.called_from is not None
    assert found.called_from.file.endswith("test_frames.py")


def test_a_library_that_calls_the_users_code(module: Callable[..., ModuleType]) -> None:
    library = module(SOURCE, "lib/python3/site-packages/library")
    found = frame_of(lambda: library.call(lambda x: x.sqrt(), torch.ones(2)), "sqrt")
    assert found.location.file.endswith("test_frames.py")
    assert found.called_from is None


def test_pythons_own_library_is_one_too() -> None:
    found = frame_of(lambda: rgb_to_yiq(*torch.ones(3)), "mul")
    assert found.location.file.endswith("colorsys.py")
    assert found.called_from is not None
    assert found.called_from.file.endswith("test_frames.py")


def test_the_users_own_contexts_and_torchs_functions_are_passed_over() -> None:
    @contextmanager
    def context() -> Iterator[None]:
        yield

    @context()
    @torch.no_grad()
    def inner(x: Tensor) -> Tensor:
        return nn.functional.softplus(x)  # here

    assert "# here" in frame_of(lambda: inner(torch.ones(2)), "softplus").code


def called_by_gradcheck(source: str, **scope: Any) -> Callable[[], None]:
    """Run a string as gradcheck itself would run a compiled extension: no line of the user's is on the way."""
    ours: dict[str, Any] = {}
    driver = "def drive(source, scope):\n    exec(source, scope)\n"
    exec(compile(driver, f"{frames.OWN}drive/extension.py", "exec"), ours)
    return lambda: ours["drive"](source, scope)


def test_without_any_line_of_the_users_the_module_of_torch() -> None:
    found = frame_of(called_by_gradcheck("layer(x)", layer=nn.Linear(2, 2), x=torch.ones(1, 2)), "addmm")
    assert found.location.file.endswith("linear.py")
    assert found.function.endswith("forward")


def test_no_line_at_all() -> None:
    assert [op.frame for op in trace(called_by_gradcheck("x.sqrt()", x=torch.ones(2)))] == [None]


def test_in_backward_the_forward_line() -> None:
    x = torch.ones(2, requires_grad=True)

    def call() -> None:
        y = x.sqrt()  # forward line
        y.sum().backward()

    derivative = next(op for op in trace(call) if op.node == "SqrtBackward0")
    assert derivative.frame is not None
    assert "# forward line" in derivative.frame.code


def test_in_backward_a_hooks_own_line() -> None:
    x = torch.ones(2, requires_grad=True)
    x.register_hook(lambda gradient: gradient.tanh())  # hook
    found = frame_of(lambda: x.sqrt().sum().backward(), "tanh")
    assert "# hook" in found.code


def test_a_source_that_cannot_be_read() -> None:
    scope: dict[str, Any] = {}
    exec(compile("def gone(x):\n    return x.sqrt()\n", "/nowhere/gone.py", "exec"), scope)
    found = frame_of(lambda: scope["gone"](torch.ones(2)), "sqrt")
    assert (found.location.file, found.location.line) == ("/nowhere/gone.py", 2)
    assert (found.code, found.expression) == ("", "")


def test_columns_count_bytes(module: Callable[..., ModuleType]) -> None:
    mine = module('def f(x):\n    return "äöü€", x.sqrt()\n')
    found = frame_of(lambda: mine.f(torch.ones(2)), "sqrt")
    assert found.expression in ("x.sqrt()", "")
    assert bool(found.expression) == (sys.version_info >= (3, 11))


def test_python_3_10_tells_no_positions() -> None:
    code = SimpleNamespace(co_filename=__file__)
    assert frames.expression(code, 0) == ""  # type: ignore[arg-type]


def test_an_instruction_without_a_position() -> None:
    code = SimpleNamespace(co_filename=__file__, co_positions=lambda: iter([(None, None, None, None)]))
    assert frames.expression(code, 0) == ""  # type: ignore[arg-type]
