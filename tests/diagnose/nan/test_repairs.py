"""What is said and repaired in cases that look alike: it must be true of the case and fit the user's line."""

from __future__ import annotations

import pytest

from gradcheck_cli.tape import NanOrigin
from tests.diagnose.nan.cause_tapes import forward, refused_matrix, underflowed, update
from tests.diagnose.nan.tapes import TapeBuilder, Value, outside, state

X = outside("batch:[0]")
ZERO = outside("batch:[1]", zeros=1, low=0.0)


def hook(line: str) -> NanOrigin:
    """A line of the user's that divides a gradient by its norm of 0."""
    tape = TapeBuilder()
    gradient = tape.run("mm", X, phase="backward", node="MmBackward0", forward=-1)
    norm = tape.run("linalg_vector_norm", gradient, out=state(shape=(), zeros=1), phase="backward", node="Hook")
    bad = tape.run("div", gradient, norm, out=state("NaN"), phase="backward", node="AccumulateGrad", line=line)
    return tape.explained(bad, "gradient", "fc.weight")


def test_a_hook_divides_and_has_no_slope() -> None:
    origin = hook("g / g.norm()")
    assert origin.cause == "normalise-zero-vector"
    assert "slope" not in origin.explanation
    assert origin.fix == "g / g.norm().clamp(min=1e-6)"


def test_a_buffer_that_is_no_mask_is_the_origin() -> None:
    tape = TapeBuilder()
    gap = tape.run("sub", X, outside("buffer:log_variance", "-inf"), out=state("inf"))
    power = tape.run("exp", gap, out=state("inf"))
    origin = tape.explained(tape.run("sub", power, gap, out=state("NaN")))
    assert (origin.phase, origin.source) == ("buffer", "buffer:log_variance")


def test_a_buffer_that_masks_logits_is_none() -> None:
    tape = TapeBuilder()
    logits = tape.run("add", X, outside("buffer:mask", "-inf"), out=state("-inf"))
    total = tape.run("logsumexp", logits, out=state("-inf"))
    origin = tape.explained(tape.run("sub", logits, total, out=state("NaN")))
    assert (origin.op, origin.cause) == ("aten::sub", "categorical-fully-masked")


def test_a_number_is_not_clamped() -> None:
    number = forward("div", X, out=state("inf"), line="x / temperature", constants=(("other", "0.0"),))()
    assert number.fix == "x / max(temperature, 1e-6)"


def test_zeros_that_are_divided_are_no_divisors() -> None:
    origin = forward("div", ZERO, out=state("inf"), line="x / 1e-40", constants=(("other", "1e-40"),))()
    assert origin.cause == "quotient-overflow"
    assert "the divisor is 1e-40" in origin.explanation


def test_negative_divisors_stay() -> None:
    origin = forward("div", X, outside("batch:z", zeros=1, negatives=2), out=state("inf"), line="x / z")()
    assert origin.fix == "x / torch.where(z == 0, 1e-6, z)"


def test_a_tiny_total_is_not_clamped_to_one() -> None:
    assert underflowed().fix == "p / p.sum().clamp(min=torch.finfo(p.dtype).tiny)"


def test_squares_that_are_all_0_did_not_underflow() -> None:
    tape = TapeBuilder()
    squares = tape.run("pow", outside("batch:[0]", zeros=4, low=0.0, high=0.0), out=state(zeros=4))
    total = tape.run("sum", squares, out=state(shape=(), zeros=1))
    assert "underflowed" not in tape.explained(tape.run("div", X, total, out=state("NaN"))).explanation


@pytest.mark.parametrize(("op", "name"), [("acosh", "acosh"), ("acos", "acos")])
def test_where_an_inverse_is_clamped(op: str, name: str) -> None:
    fix = forward(op, outside("batch:[0]", low=0.5, high=1.5), line=f"torch.{op}(x)")().fix
    bounds = {"acosh": "min=1 + 1e-6", "acos": "-1 + 1e-6, 1 - 1e-6"}[op]
    assert fix == f"torch.{name}(x.clamp({bounds}))"


def test_inputs_that_are_infinite_are_counted() -> None:
    origin = forward("addmm", X, outside("constant:", "-inf"), names="self mat1", out=state("NaN"))()
    assert origin.cause in ("operator-over-infinity", "constant-nonfinite")
    assert "not defined" not in origin.explanation


def test_an_infinite_input_of_a_derivative_with_its_writer() -> None:
    tape = TapeBuilder()
    filled = tape.run("full", out=state("-inf"), writes_constant=True)
    result = tape.run("logaddexp", filled, X)
    origin = tape.explained(tape.derive(result, "sub", filled, filled, out=state("NaN")), "gradient", "w")
    assert origin.cause == "operator-over-infinity"
    assert "1 of 4 elements of self is infinite" in origin.explanation
    assert "written by full" in origin.explanation


@pytest.mark.parametrize(("line", "matrix"), [("torch.linalg.inv(a)", "a"), ("torch.linalg.cholesky(k)", "k")])
def test_a_refused_matrix_gets_a_diagonal(line: str, matrix: str) -> None:
    origin = refused_matrix(line)
    assert f"{matrix} + 1e-6 * torch.eye({matrix}.shape[-1]" in origin.fix


def test_a_covariance_gets_a_diagonal() -> None:
    origin = refused_matrix("MultivariateNormal(mean, covariance)", "_local_scalar_dense")
    assert origin.cause == "singular-matrix-refused"
    assert "torch.eye" in origin.fix


def test_the_optimizer_is_not_called_adam_unless_it_is() -> None:
    own = update("div", X, ZERO, names="self other", line="Own(model.parameters())")()
    assert "Adam" not in own.explanation + own.fix
    torchs = update("addcdiv_", X, X, ZERO, line="torch.optim.RMSprop(model.parameters(), eps=0)")()
    assert torchs.fix == "torch.optim.RMSprop(model.parameters(), eps=1e-8)"


def test_a_weight_decay_that_is_nan_is_not_called_a_learning_rate() -> None:
    factor = (("alpha", "nan"),)
    gradient = outside("gradient:w")
    assert "the learning rate is NaN" in update("add_", outside("parameter:w"), X, constants=factor)().explanation
    assert "the learning rate is" not in update("add", gradient, X, constants=factor)().explanation


def test_divergences_of_normal_distributions_are_not_of_classes() -> None:
    tape, line = TapeBuilder(), "kl_divergence(posterior, prior)"
    ratio = tape.run("div", X, X, out=state(zeros=1), line=line)
    square = tape.run("pow", ratio, out=state(zeros=1), line=line, constants=(("exponent", "2"),))
    origin = tape.explained(tape.run("log", square, out=state("-inf"), line=line))
    assert origin.cause == "normal-scale-zero"
    assert "kl_div(" not in origin.fix


def test_a_layer_in_half_is_not_rewritten_as_a_product() -> None:
    half = Value(state(dtype="float16", low=-4e4, high=4e4))
    layer = forward("addmm", half, out=state("inf", dtype="float16"), line="self.fc(x)")()
    assert "@" not in layer.fix
    assert "float" in layer.fix


def test_clipping_is_no_repair_of_an_infinite_gradient() -> None:
    tape = TapeBuilder()
    result = tape.run("mm", X)
    origin = tape.explained(tape.derive(result, "mul", X, X, out=state("inf")), "gradient", "w")
    assert origin.cause == "gradient-overflow"
    assert "clip_grad_norm_" not in origin.fix


def test_a_pole_is_no_overflow() -> None:
    for op in ("lgamma", "digamma", "xlogy"):
        origin = forward(op, *(ZERO, ZERO)[: 1 + (op == "xlogy")], out=state("inf"))()
        assert "beyond" not in origin.explanation


def test_the_results_of_an_operator_in_words() -> None:
    tape = TapeBuilder()
    ratio = tape.run("exp", X, out=state("inf"))
    used = tape.run("clamp", ratio)
    gradient = tape.run("ones_like", phase="backward", node="MeanBackward0")
    slope = tape.run("mul", gradient, ratio, out=state("NaN"), phase="backward", node="ExpBackward0", forward=0)
    assert used
    assert tape.explained(slope, "gradient", "w").explanation.startswith("1 of 4 results of exp is infinite")
