"""Tapes for the catalogue's tests: one operation of a kind, and those of causes that need several."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from gradcheck_cli.diagnose.nan.explanation import explain
from gradcheck_cli.diagnose.nan.slicing import find_origin
from gradcheck_cli.tape import NanOrigin, TensorState
from tests.diagnose.nan.tapes import TapeBuilder, Value, outside, state

Case = Callable[[], NanOrigin]
X = outside("batch:[0]")
ZERO = outside("batch:[0]", zeros=1, low=0.0)
INF = state("inf")
HALF = state(dtype="float16", low=-4e4, high=4e4)


def forward(
    op: str, *inputs: Value, out: TensorState | None = None, then: str = "", with_: Value = X, **fields: Any
) -> Case:
    """One operation; `then` are those that use its result, the last with another input."""

    def case() -> NanOrigin:
        tape = TapeBuilder()
        value = tape.run(op, *(inputs or (X,)), out=out or state("NaN"), **fields)
        for name in then.split():
            value = tape.run(name, value, with_, out=state("NaN" if name == "mul" else "inf"))
        return tape.explained(value)

    return case


def after(makers: str, op: str, out: TensorState | None = None, then: str = "", **counts: Any) -> Case:
    """An operation whose last input other operations made, one from the other."""

    def case() -> NanOrigin:
        tape, value = TapeBuilder(), X
        for name in makers.split():
            value = tape.run(name, value, out=state(**counts))
        inputs = (X, value) if op in ("div", "mul") else (value,)
        bad = tape.run(op, *inputs, out=out or state("-inf"))
        for name in then.split():
            bad = tape.run(name, bad, value, out=state("NaN"))
        return tape.explained(bad)

    return case


def derivative(
    op: str, given: Value = ZERO, what: str = "NaN", then: str = "", names: str = "", makers: str = "", **fields: Any
) -> Case:
    """A fault in the derivative of an operation, whose result others use."""

    def case() -> NanOrigin:
        tape, value = TapeBuilder(), given
        for name in makers.split():
            value = tape.run(name, value, out=given.state)
        result = used = tape.run(op, value, X, names=names, **fields)
        for name in then.split():
            used = tape.run(name, used, X)
        gradient = tape.run("ones_like", phase="backward", node="MeanBackward0")
        slope = tape.derive(result, "div", gradient, value, out=state(what))
        return tape.explained(slope, "gradient", "fc.weight")

    return case


def custom() -> NanOrigin:
    tape = TapeBuilder()
    result = tape.run("clone", X)
    slope = tape.derive(result, "div", X, ZERO, out=state("NaN"), node="MineBackward")
    return tape.explained(slope, "gradient", "fc.weight")


def read(source: str, what: str = "NaN", **counts: Any) -> Case:
    return forward("mm", outside(source, what, **counts))


def masked(op: str, *, out: str = "NaN", before: str = "", phase: str = "forward", **fields: Any) -> Case:
    """A -inf that was written on purpose, and what read it."""

    def case() -> NanOrigin:
        tape = TapeBuilder()
        value = tape.run("masked_fill", X, out=state("-inf", (2, 4)), writes_constant=True)
        for name in before.split():
            value = tape.run(name, value, out=state("-inf", (2, 4)))
        inputs = (value, tape.run("logsumexp", value, out=state("-inf"))) if op == "sub" else (value, X)
        return tape.explained(tape.run(op, *inputs, out=state(out, (2,)), phase=phase, **fields))

    return case


def update(op: str, *inputs: Value, what: str = "NaN", names: str = "self tensor1 tensor2", **fields: Any) -> Case:
    """A fault in the optimizer's step."""

    def case() -> NanOrigin:
        tape = TapeBuilder()
        dtype = inputs[0].state.dtype if inputs else "float32"
        out = state(what, dtype=dtype)
        bad = tape.run(op, *inputs, out=out, phase="optimizer", names=names, **fields)
        return tape.explained(bad, "parameter", "fc.weight")

    return case


def half_update() -> NanOrigin:
    tape = TapeBuilder()
    root = tape.run("sqrt", X, out=state(zeros=1, dtype="float16"), phase="optimizer")
    given = tape.run(
        "add_", root, out=state(zeros=1, dtype="float16"), phase="optimizer", constants=(("other", "1e-08"),)
    )
    half = outside("parameter:w", dtype="float16")
    bad = tape.run(
        "addcdiv_", half, X, given, out=state("NaN", dtype="float16"), phase="optimizer", names="self tensor1 tensor2"
    )
    return tape.explained(bad, "parameter", "w")


def centered() -> NanOrigin:
    tape = TapeBuilder()
    variance = tape.run("addcmul", X, X, out=state(negatives=2, low=-1e-10), phase="optimizer")
    return tape.explained(tape.run("sqrt_", variance, out=state("NaN"), phase="optimizer"), "parameter", "w")


def refused_matrix(line: str = "torch.linalg.inv(a)", op: str = "_linalg_check_errors") -> NanOrigin:
    tape = TapeBuilder()
    built, sink = tape.sink(tape.run(op, X, outputs=(), line=line), "error", "singular")
    return explain(built, find_origin(built, replace(sink, nan_from=(0,))))


def spectral_norm() -> NanOrigin:
    tape, weight = TapeBuilder(), outside("parameter:head.weight", zeros=4, low=0.0, high=0.0)
    sigma = tape.run("vdot", weight, X, out=state(shape=(), zeros=1))
    return tape.explained(tape.run("div", weight, sigma, out=state("NaN")))


def underflowed() -> NanOrigin:
    tape = TapeBuilder()
    power = tape.run("pow", outside("batch:[0]", low=0.01), out=state(zeros=4), constants=(("exponent", "100.0"),))
    total = tape.run("sum", power, out=state(shape=(), zeros=1))
    return tape.explained(tape.run("div", power, total, out=state("NaN"), line="p / p.sum()"))


def infinite_slope() -> NanOrigin:
    tape = TapeBuilder()
    result = tape.run("asinh", ZERO)
    slope = tape.derive(result, "div", X, ZERO, out=state("inf"))
    return tape.explained(slope, "gradient", "fc.weight")


def label_smoothing() -> NanOrigin:
    return masked("sum", out="-inf", before="_log_softmax", phase="loss")()


def scale_zero() -> NanOrigin:
    return forward("div", X, ZERO, line="Normal(mean, scale).log_prob(x)", phase="loss")()


def kl() -> NanOrigin:
    tape, p = TapeBuilder(), ZERO
    log = tape.run("log", p, out=state("-inf"))
    difference = tape.run("sub", log, X, out=state("-inf"))
    return tape.explained(tape.run("mul", p, difference, out=state("NaN")))


def zero_times_inf() -> NanOrigin:
    return forward("log", ZERO, out=state("-inf"), then="mul", with_=outside("batch:mask", zeros=2, ones=2, low=0.0))()


def masked_mean() -> NanOrigin:
    tape = TapeBuilder()
    total = tape.run("sum", outside("batch:mask", zeros=4, low=0.0, high=0.0), out=state(shape=(), zeros=1))
    return tape.explained(tape.run("div", tape.run("sum", X), total, out=state("NaN", shape=())))


def refused() -> NanOrigin:
    tape = TapeBuilder()
    built, sink = tape.sink(tape.run("binary_cross_entropy", X, outputs=()), "error", "outside of [0, 1]")
    return explain(built, find_origin(built, replace(sink, nan_from=(0,))))


def weights(**counts: Any) -> Case:
    return forward("nll_loss_forward", X, X, outside("constant:", **counts), names="self target weight", phase="loss")


def naive_softmax() -> NanOrigin:
    tape = TapeBuilder()
    power = tape.run("exp", X, out=INF)
    total = tape.run("sum", power, out=INF)
    return tape.explained(tape.run("div", power, total, out=state("NaN")))
