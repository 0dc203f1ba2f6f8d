"""The catalogue: every cause is the first to apply to a case of its own, and says it in numbers and code."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from gradcheck_cli.diagnose.nan.causes import CAUSES
from gradcheck_cli.diagnose.nan.explanation import explain
from gradcheck_cli.diagnose.nan.slicing import find_origin
from gradcheck_cli.tape import NanOrigin, TensorState
from tests.diagnose.nan.tapes import TapeBuilder, Value, outside, state

Case = Callable[[], NanOrigin]
X = outside("batch:[0]")
ZERO = outside("batch:[0]", zeros=1, low=0.0)
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
    given = tape.run("add_", X, out=state(zeros=1, dtype="float16"), phase="optimizer", constants=(("other", "1e-08"),))
    half = outside("parameter:w", dtype="float16")
    bad = tape.run(
        "addcdiv_", half, X, given, out=state("NaN", dtype="float16"), phase="optimizer", names="self tensor1 tensor2"
    )
    return tape.explained(bad, "parameter", "w")


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


INF, MINUS = state("inf"), state("-inf")
HALF_INF = state("inf", dtype="float16")
BIG = outside("batch:[0]", low=-3.38e38, high=0.0, dtype="bfloat16")

CASES: dict[str, Case] = {
    "batch-nonfinite": read("batch:[0]['x']", bad_rows=(1,)),
    "parameter-nonfinite": read("parameter:fc.weight"),
    "running-statistics-nonfinite": read("buffer:norm.running_var", "inf"),
    "buffer-nonfinite": read("buffer:mean"),
    "optimizer-state-nonfinite": read("state:exp_avg of fc.weight"),
    "gradient-nonfinite": read("gradient:fc.weight"),
    "constant-nonfinite": read("constant:"),
    "custom-backward": custom,
    "product-through-logs": derivative("log", then="sum exp"),
    "double-where": derivative("log", then="where"),
    "entropy-at-zero": after("_softmax", "log", then="mul", zeros=1),
    "log-of-softmax": after("_softmax", "log", zeros=1),
    "log-of-one-minus-sigmoid": after("sigmoid rsub", "log", zeros=1),
    "log-of-sigmoid": after("sigmoid", "log", zeros=1),
    "kl-at-zero": kl,
    "naive-logsumexp": after("exp sum", "log", zeros=1),
    "gumbel-at-bound": after("log neg", "log", zeros=1),
    "inverse-softplus-at-zero": after("expm1", "log", zeros=1),
    "softmax-fully-masked": masked("_softmax"),
    "categorical-fully-masked": masked("sub"),
    "label-smoothing-over-inf": label_smoothing,
    "mask-sum-overflow": forward("add", BIG, BIG, out=state("-inf", dtype="bfloat16")),
    "mask-overflow": forward("_to_copy", outside("batch:mask", low=-1e9, high=0.0), out=state("-inf", dtype="float16")),
    "attention-overflow": forward("_scaled_dot_product_flash_attention_for_cpu", X, X, X),
    "zero-times-inf": zero_times_inf,
    "divide-by-unset-buffer": forward("div", X, outside("buffer:std", zeros=4)),
    "standardise-constant": after("std", "div", state("NaN"), zeros=1),
    "normalise-zero-vector": after("linalg_vector_norm clamp_min", "div", state("NaN"), zeros=1),
    "masked-mean-of-empty": masked_mean,
    "normal-scale-zero": scale_zero,
    "rsqrt-at-zero": forward("rsqrt", ZERO, out=INF),
    "sqrt-at-zero": derivative("sqrt"),
    "focal-power-at-zero": derivative("pow", makers="rsub", constants=(("exponent", "0.5"),)),
    "power-at-zero": derivative("pow", constants=(("exponent", "0.5"),)),
    "acos-at-one": derivative("acos", outside("batch:[0]", ones=1), "inf"),
    "degenerate-eigenvalues": derivative("_linalg_eigh", X),
    "xlogy-at-zero": derivative("xlogy"),
    "quotient-derivative-overflow": derivative("reciprocal", outside("batch:[0]", low=1e-30), "inf"),
    "naive-softmax": naive_softmax,
    "exp-overflow": forward("exp", out=INF, then="mean"),
    "sqrt-of-negative": forward("sqrt", outside("batch:[0]", negatives=1)),
    "power-of-negative": forward("pow", outside("batch:[0]", negatives=1)),
    "acos-outside-domain": forward("acos", outside("batch:[0]", high=1.1)),
    "atanh-at-one": forward("atanh", outside("batch:[0]", ones=1), out=INF),
    "logdet-of-singular-matrix": forward("_linalg_slogdet", out=MINUS),
    "uninitialised-memory": forward("empty"),
    "std-of-one": forward("std", outside("batch:[0]", shape=(1,))),
    "norm-without-eps": forward("native_layer_norm", constants=(("eps", "0.0"),)),
    "weight-norm-of-zero": forward("_weight_norm_interface", outside("parameter:v", zeros=4)),
    "variance-overflow": forward("native_batch_norm", out=INF, constants=(("eps", "1e-05"),)),
    "norm-overflow": forward("linalg_vector_norm", outside("batch:[0]", high=1e25), out=INF),
    "class-weights-zero": weights(zeros=2),
    "every-label-ignored": forward("nll_loss_forward", X, X, names="self target", phase="loss"),
    "mean-of-empty": forward("mean", Value(TensorState((0,), "float32", 0))),
    "ctc-target-too-long": forward("_ctc_loss", out=INF),
    "masked-target": masked("nll_loss_forward", out="inf", phase="loss"),
    "loss-overflow": forward("mse_loss", out=INF, phase="loss"),
    "log-of-negative": forward("log", outside("batch:[0]", negatives=1)),
    "log-of-zero": forward("log", ZERO, out=MINUS),
    "zero-divided-by-zero": forward("div", ZERO, outside("batch:[1]", zeros=1)),
    "division-by-zero": forward("div", X, outside("batch:[1]", zeros=1), out=INF),
    "quotient-overflow": forward("div", X, outside("batch:[1]", low=1e-40), out=INF),
    "half-matmul-overflow": forward("mm", Value(HALF), out=HALF_INF),
    "half-square-overflow": forward("square", Value(HALF), out=HALF_INF),
    "half-residual-overflow": forward("add", Value(HALF), Value(HALF), out=HALF_INF),
    "fp16-cast-overflow": forward("_to_copy", outside("batch:[0]", low=-1.0, high=1e6), out=HALF_INF),
    "half-overflow": forward("cumsum", Value(HALF), out=HALF_INF),
    "adam-eps-underflow": half_update,
    "adam-eps-zero": update("addcdiv_", X, X, outside("state:v", zeros=1)),
    "update-overflow": update("add_", X, X, what="inf", names="self other", constants=(("alpha", "-1e+38"),)),
    "update-undefined": update("lerp_", X, names="self"),
    "gradient-norm-overflow": forward("_foreach_norm", outside("", high=1e25), out=INF, phase="clip"),
    "gradient-overflow": derivative("mm", X, "inf"),
    "nan-in-derivative": derivative("mm", X),
    "overflow": forward("mm", out=INF),
    "undefined-result": forward("mm"),
    "refused-value": refused,
}


@pytest.mark.parametrize("cause", CASES)
def test_it_is_the_first_to_apply(cause: str) -> None:
    origin = CASES[cause]()
    assert origin.cause == cause, origin.explanation
    assert origin.explanation.strip()
    assert "None" not in origin.explanation
    ast.parse(origin.fix)


def test_every_cause_has_a_case_of_its_own() -> None:
    assert sorted(CASES) == sorted(cause.id for cause in CAUSES)


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.id)
def test_it_is_documented(cause: Any) -> None:
    title, _, body = cause.documentation.partition("\n\n## What happens\n\n")
    happens, _, fix = body.partition("\n\n## How to fix\n\n")
    assert title == f"# {cause.title}"
    assert happens.strip().endswith(".")
    assert fix.strip().endswith(".")
    assert set(cause.id) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_the_numbers_of_the_offending_input() -> None:
    many = outside("batch:[0]", shape=(64, 64), zeros=12, low=0.0)
    origin = derivative("sqrt", many, line="torch.sqrt(x.pow(2).mean(-1, keepdim=True))")()
    expected = "12 of 4096 inputs of sqrt are exactly 0, where its slope is infinite (0 · inf = NaN)"
    assert origin.explanation == expected
    assert origin.fix == "torch.sqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)"
    stats = dict(origin.input_stats)
    assert stats["self"].zeros == 12
    assert stats["gradient"].finite


def test_the_rows_of_a_batch() -> None:
    origin = read("batch:[0]['x']", shape=(32, 3), bad_rows=(4, 7))()
    assert origin.explanation == "1 of 96 elements of batch[0]['x'] is NaN, in rows 4, 7"


def test_a_column_that_is_bad_in_every_sample() -> None:
    origin = read("batch:[0]", shape=(4, 3), bad_rows=(0, 1, 2, 3))()
    assert "standard deviation of 0" in origin.explanation
    assert ".std(0).clamp" in origin.fix


def test_a_scale_that_a_distribution_refuses() -> None:
    tape = TapeBuilder()
    line = "torch.distributions.Normal(mean, scale)"
    checked = tape.run("_local_scalar_dense", outside("batch:[0]"), out=state(), line=line)
    built, sink = tape.sink(checked, "error", "Expected parameter scale")
    origin = explain(built, find_origin(built, replace(sink, nan_from=(0,))))
    assert (origin.cause, origin.kind, origin.op) == ("normal-scale-zero", "finite", "")
