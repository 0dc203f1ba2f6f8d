"""Repairs made of the user's own expression."""

from __future__ import annotations

import pytest

from gradcheck_cli.diagnose.nan.evidence import Evidence
from gradcheck_cli.diagnose.nan.rewriting import rewrite
from gradcheck_cli.diagnose.nan.slicing import find_origin
from tests.diagnose.nan.tapes import TapeBuilder, outside, state

ROOT = rewrite("sqrt", to="torch.sqrt({x} + 1e-6)")
QUOTIENT = rewrite("div", to="{X} / {Y}.clamp(min=1e-6)")
POWER = rewrite("pow", to="({x} + 1e-6) ** {Y}", instead="(x + 1e-6) ** e")
LOG_SOFTMAX = rewrite("log", inner="softmax", to="F.log_softmax({x}{rest})", instead="F.log_softmax(logits, dim=-1)")
LOG_SIGMOID = rewrite("log", inner="sigmoid", to="F.logsigmoid(-{X})")


def evidence_of(line: str) -> Evidence:
    tape, sink = (builder := TapeBuilder()).sink(builder.run("sqrt", outside("x"), out=state("NaN"), line=line))
    return Evidence.of(tape, find_origin(tape, sink))


@pytest.mark.parametrize(
    ("line", "repaired"),
    [
        ("torch.sqrt(x.pow(2).mean(-1, keepdim=True))", "torch.sqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)"),
        ("return x / torch.sqrt(x.pow(2).mean(-1))", "torch.sqrt(x.pow(2).mean(-1) + 1e-6)"),
        ("norm = (a - b).square().sum(-1).sqrt()", "torch.sqrt((a - b).square().sum(-1) + 1e-6)"),
        ("x.sqrt_()", "torch.sqrt(x + 1e-6)"),
        ("a * a if a else sqrt(b)", "torch.sqrt(b + 1e-6)"),
        ("torch.sqrt(a if ok else b)", "torch.sqrt((a if ok else b) + 1e-6)"),
        ("with f(torch.sqrt(a)):", "torch.sqrt(a + 1e-6)"),
        ("torch.sqrt(torch.sqrt(a))", "torch.sqrt(torch.sqrt(a) + 1e-6)"),
    ],
)
def test_calls_and_methods(line: str, repaired: str) -> None:
    assert ROOT(evidence_of(line)) == repaired


@pytest.mark.parametrize(
    "line", ["", "torch.sqrt(a) - torch.sqrt(b)", "self.root(x)", "torch.sqrt(", "torch.sqrt()", "*", "é = 1\0"]
)
def test_what_cannot_be_read_gets_the_general_form(line: str) -> None:
    assert ROOT(evidence_of(line)) == "torch.sqrt(x + 1e-6)"


@pytest.mark.parametrize(
    ("line", "repaired"),
    [
        ("(x - mean) / x.std(0)", "(x - mean) / x.std(0).clamp(min=1e-6)"),
        ("return total / (a + b)", "total / (a + b).clamp(min=1e-6)"),
        ("torch.div(x, y)", "x / y.clamp(min=1e-6)"),
        ("x.div(y)", "x / y.clamp(min=1e-6)"),
        ("functional.normalize(x)", "x / y.clamp(min=1e-6)"),
    ],
)
def test_operators(line: str, repaired: str) -> None:
    assert QUOTIENT(evidence_of(line)) == repaired


def test_powers() -> None:
    assert POWER(evidence_of("(self.weight * x) ** 0.5")) == "(self.weight * x + 1e-6) ** 0.5"
    assert POWER(evidence_of("x.pow(1 / p)")) == "(x + 1e-6) ** (1 / p)"
    assert POWER(evidence_of("f(x)")) == "(x + 1e-6) ** e"


def test_what_is_within() -> None:
    assert LOG_SOFTMAX(evidence_of("torch.log(F.softmax(x, dim=-1))")) == "F.log_softmax(x, dim=-1)"
    assert LOG_SOFTMAX(evidence_of("self.head(x).softmax(1).log()")) == "F.log_softmax(self.head(x), 1)"
    assert LOG_SOFTMAX(evidence_of("torch.log(p)")) == "F.log_softmax(logits, dim=-1)"
    assert LOG_SIGMOID(evidence_of("-torch.log(1 - torch.sigmoid(a + b))")) == "F.logsigmoid(-(a + b))"


def test_an_expression_over_several_lines_becomes_one() -> None:
    assert ROOT(evidence_of("torch.sqrt(\n    a  # why\n    + b\n)")) == "torch.sqrt(a + b + 1e-6)"


def test_an_assignment_in_an_expression_keeps_its_meaning() -> None:
    assert ROOT(evidence_of("torch.sqrt(y := f(x))")) == "torch.sqrt((y := f(x)) + 1e-6)"
