"""From a sink back to the origin."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from gradcheck_cli.diagnose.nan.explanation import explain
from gradcheck_cli.diagnose.nan.slicing import find_origin
from gradcheck_cli.tape import Operand, Operation, Sink, Tape, TensorState
from tests.diagnose.nan.tapes import TapeBuilder, outside, state


def test_the_operation_whose_inputs_are_finite() -> None:
    tape = TapeBuilder()
    x = tape.run("mm", outside("batch:[0]"), outside("parameter:fc.weight"))
    bad = tape.run("sqrt", x, out=state("NaN"), module="norm", module_type="Norm")
    scaled = tape.run("mul", bad, out=state("NaN"))
    origin = tape.origin(tape.run("mean", scaled, out=state("NaN", shape=()), phase="loss"))
    assert (origin.op, origin.operation, origin.phase, origin.kind) == ("aten::sqrt", 1, "forward", "nan")
    assert (origin.module, origin.module_type, origin.step) == ("norm", "Norm", 3)
    assert origin.path == ("sqrt", "mul", "mean", "loss")
    assert (origin.sink, origin.sink_kind) == ("loss", "nan")


def test_nan_before_inf_and_the_earliest_first() -> None:
    tape = TapeBuilder()
    infinite = tape.run("exp", outside("batch:[0]"), out=state("inf"))
    first = tape.run("sqrt", outside("batch:[0]"), out=state("NaN"))
    second = tape.run("acos", outside("batch:[0]"), out=state("NaN"))
    origin = tape.origin(tape.run("stack", second, infinite, first, out=state("NaN")))
    assert origin.op == "aten::sqrt"


def test_a_computed_infinity_that_becomes_nan_is_the_origin() -> None:
    tape = TapeBuilder()
    logarithm = tape.run("log", outside("batch:[0]"), out=state("-inf"))
    origin = tape.origin(tape.run("mul", logarithm, outside("batch:[1]"), out=state("NaN")))
    assert (origin.op, origin.kind, origin.contributors) == ("aten::log", "inf", ())


def test_a_written_infinity_contributes_to_the_nan_that_is_made_of_it() -> None:
    tape = TapeBuilder()
    masked = tape.run("masked_fill", outside("batch:[0]"), out=state("-inf"), writes_constant=True)
    shifted = tape.run("add", masked, outside("parameter:bias"), out=state("-inf"))
    weights = tape.run("_softmax", shifted, out=state("NaN"))
    origin = tape.origin(tape.run("mean", weights, out=state("NaN")))
    assert (origin.op, origin.operation) == ("aten::_softmax", 2)
    assert origin.contributors == ("-inf written by masked_fill at model.py:10",)


def test_a_computed_infinity_counts_more_than_a_written_one() -> None:
    tape = TapeBuilder()
    masked = tape.run("full", out=state("-inf"), writes_constant=True)
    overflow = tape.run("exp", outside("batch:[0]"), out=state("inf"))
    origin = tape.origin(tape.run("add", masked, overflow, out=state("NaN")))
    assert origin.op == "aten::exp"


def test_a_written_infinity_that_reaches_the_loss_is_charged_to_what_mixed_it() -> None:
    tape = TapeBuilder()
    masked = tape.run("masked_fill", outside("batch:[0]"), out=state("-inf", shape=(2, 4)), writes_constant=True)
    logs = tape.run("_log_softmax", masked, out=state("-inf", shape=(2, 4)), phase="loss")
    total = tape.run("sum", logs, out=state("-inf", shape=(2,)), phase="loss")
    origin = tape.origin(tape.run("neg", total, out=state("inf", shape=(2,)), phase="loss"))
    assert (origin.op, origin.phase, origin.kind) == ("aten::sum", "loss", "inf")
    assert origin.contributors == ("-inf written by masked_fill at model.py:10",)


def test_a_mask_from_outside_is_no_origin_where_softmax_reads_it() -> None:
    tape = TapeBuilder()
    scores = tape.run("add", tape.run("mm", outside("batch:[0]")), outside("buffer:mask", "-inf"), out=state("-inf"))
    origin = tape.origin(tape.run("_softmax", scores, out=state("NaN")))
    assert origin.op == "aten::_softmax"
    assert origin.contributors == ("infinite elements of buffer:mask",)


def test_a_buffer_of_minus_infinity_that_makes_the_loss_infinite_is_the_origin() -> None:
    tape = TapeBuilder()
    scores = tape.run("add", outside("batch:[0]"), outside("buffer:prior", "-inf"), out=state("-inf"))
    logs = tape.run("_log_softmax", scores, out=state("-inf"))
    origin = tape.origin(tape.run("nll_loss_forward", logs, out=state("inf")))
    assert (origin.phase, origin.source) == ("buffer", "buffer:prior")


def test_values_from_outside() -> None:
    for source, phase in (("batch:[0]['x']", "data"), ("parameter:fc.weight", "parameter"), ("buffer:mean", "buffer")):
        tape = TapeBuilder()
        tape.run("clone", outside(source))
        read = tape.run("mm", outside(source, "NaN"), out=state("NaN"), micro_batch=1)
        origin = tape.origin(tape.run("mean", read, out=state("NaN")))
        assert (origin.phase, origin.source, origin.operation, origin.op) == (phase, source, -1, "")
        assert origin.micro_batch == 1
        assert origin.frame is not None
        assert origin.frame.location.line == 11


def test_a_parameter_that_nothing_read() -> None:
    origin = TapeBuilder().origin(outside("parameter:fc.weight", "inf"), "parameter", "fc.weight")
    assert (origin.phase, origin.kind, origin.sink) == ("parameter", "inf", "parameter fc.weight")


def test_a_fault_in_a_derivative_shows_the_forward_operation() -> None:
    tape = TapeBuilder()
    root = tape.run("sqrt", outside("batch:[0]", zeros=1), module="norm", line="x.sqrt()")
    gradient = tape.run("ones_like", phase="backward")
    twice = tape.derive(root, "mul", root, out=state(zeros=1))
    slope = tape.derive(root, "div", gradient, twice, out=state("inf"))
    origin = tape.origin(tape.run("mul", slope, out=state("NaN"), phase="backward"), "gradient", "fc.weight")
    assert (origin.op, origin.phase, origin.autograd_node, origin.module) == (
        "aten::sqrt",
        "backward",
        "SqrtBackward0",
        "norm",
    )
    assert origin.frame is not None
    assert (origin.operation, origin.frame.location.line, origin.kind) == (3, 10, "inf")
    assert (origin.path, origin.sink) == (("sqrt", "mul", "gradient of fc.weight"), "gradient of fc.weight")


def test_what_leaves_a_derivative_is_its_kind() -> None:
    tape = TapeBuilder()
    power = tape.run("pow", outside("batch:[0]", zeros=1))
    inner = tape.derive(power, "pow", outside("batch:[0]", zeros=1), out=state("inf"))
    slope = tape.derive(power, "mul", outside("batch:[0]"), inner, out=state("NaN"))
    origin = tape.origin(slope, "gradient", "w")
    assert (origin.operation, origin.kind) == (1, "nan")


def test_a_custom_derivative_shows_its_own_line() -> None:
    tape = TapeBuilder()
    forward = tape.run("clone", outside("batch:[0]"))
    slope = tape.derive(forward, "div", outside("batch:[0]"), out=state("NaN"), node="NormaliseBackward")
    origin = tape.origin(slope, "gradient", "w")
    assert origin.frame is not None
    assert (origin.op, origin.autograd_node, origin.frame.location.line) == ("aten::div", "NormaliseBackward", 11)


def test_a_recomputed_operation_stands_for_the_original() -> None:
    tape = TapeBuilder()
    original = tape.run("log", outside("batch:[0]"), out=state("-inf"))
    line = tape.operations[original.writer].frame
    again = tape.run("log", outside("batch:[0]"), out=state("-inf"), recomputed=True, frame=line)
    origin = tape.origin(tape.run("mul", again, out=state("NaN"), phase="backward"), "gradient", "w")
    assert (origin.operation, origin.phase, origin.autograd_node) == (original.writer, "forward", "")


def test_clipping_by_an_infinite_norm_is_seen_through() -> None:
    tape = TapeBuilder()
    overflow = tape.run("exp", outside("batch:[0]"), out=state("inf"), phase="backward")
    norm = tape.run("linalg_vector_norm", overflow, out=state("inf"), phase="clip")
    factor = tape.run("reciprocal", norm, out=state(), phase="clip")
    scaled = tape.run("mul", factor, out=state("NaN"), phase="clip", writes_constant=True)
    assert tape.origin(scaled, "gradient", "w").operation == overflow.writer


def test_a_long_path_is_shortened_in_the_middle() -> None:
    tape = TapeBuilder()
    value = tape.run("sqrt", outside("batch:[0]"), out=state("NaN"))
    for name in ("add", "add", "mul", "mm", "tanh", "sub", "exp", "div", "view", "mean"):
        value = tape.run(name, value, out=state("NaN"))
    assert tape.origin(value).path == ("sqrt", "add", "mul", "mm", "…", "div", "mean", "loss")


def test_a_nan_of_a_second_output_is_not_what_went_on() -> None:
    tape = TapeBuilder()
    loss = tape.run("_ctc_loss", outside("batch:[0]"), outputs=(state("inf"), state("NaN")), out=state("inf"))
    assert tape.origin(tape.run("mean", loss, out=state("inf"))).kind == "inf"


def test_the_sink_alone_is_still_something() -> None:
    origin = TapeBuilder().explained(outside("", "NaN"))
    assert (origin.operation, origin.kind) == (-1, "nan")
    assert origin.explanation


INDICES = st.lists(st.integers(-3, 12), max_size=3).map(tuple)
STATES = st.builds(
    TensorState,
    shape=st.just((4,)),
    dtype=st.sampled_from(["float32", "float16"]),
    numel=st.just(4),
    nan=st.integers(0, 1),
    negative_inf=st.integers(0, 1),
    zeros=st.integers(0, 1),
)
OPERANDS = st.builds(
    Operand,
    argument=st.sampled_from(["self", "other"]),
    state=STATES,
    producer=st.integers(-2, 12),
    source=st.sampled_from(["", "batch:[0]", "buffer:mask", "constant:"]),
    nan_from=INDICES,
    inf_from=INDICES,
)
OPERATIONS = st.builds(
    Operation,
    index=st.just(0),
    name=st.sampled_from(["log", "_softmax", "mul", "where", "div", "sub", "empty"]).map("aten::{}".format),
    overload=st.just(""),
    phase=st.sampled_from(["forward", "loss", "backward", "clip", "optimizer"]),
    micro_batch=st.just(0),
    inputs=st.lists(OPERANDS, max_size=3).map(tuple),
    outputs=st.lists(STATES, max_size=2).map(tuple),
    node=st.sampled_from(["", "LogBackward0", "MineBackward"]),
    forward=st.integers(-2, 12),
    recomputed=st.booleans(),
    writes_constant=st.booleans(),
)


@given(st.lists(OPERATIONS, max_size=10), STATES, INDICES, INDICES, st.sampled_from(["loss", "gradient", "error"]))
def test_odd_tapes_end_with_an_explained_origin(
    operations: list[Operation], bad: TensorState, nan: tuple[int, ...], inf: tuple[int, ...], what: str
) -> None:
    numbered = tuple(replace(operation, index=index) for index, operation in enumerate(operations))
    sink = Sink(what, "w", bad, nan, inf)
    tape = Tape(0, numbered, (sink,))
    origin = explain(tape, find_origin(tape, sink))
    assert -1 <= origin.operation < len(numbered)
    assert origin.cause
    assert origin.explanation
    assert origin.fix
