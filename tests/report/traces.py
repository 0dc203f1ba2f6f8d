"""Reports of made-up nan-traces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gradcheck_cli.comparison import Comparison
from gradcheck_cli.config import Settings
from gradcheck_cli.judgement import make_trace_report
from gradcheck_cli.records import Location, Report
from gradcheck_cli.tape import Frame, NanOrigin, NanTrace, Operand, Operation, Sink, TensorState
from tests.diagnose.recordings import make_recording
from tests.report.reports import HOSTILE_NAMES, VERSIONS, rounded

FINITE = TensorState((32, 128), "float32", 4096, zeros=12, low=0.0, high=3.25)
NAN = replace(FINITE, nan=384, zeros=0, bad_rows=(5, 12))
MINUS_INF = replace(FINITE, negative_inf=512, zeros=0, low=-1.5)
SCALAR_NAN = TensorState((), "float32", 1, nan=1)

RMS_NORM = Frame(
    Location("models/norm.py", 42),
    "RMSNorm.forward",
    "return x / torch.sqrt(x.pow(2).mean(-1, keepdim=True))",
    "torch.sqrt(x.pow(2).mean(-1, keepdim=True))",
)
ATTENTION = Frame(
    Location("models/attention.py", 88),
    "CausalSelfAttention.forward",
    "weights = torch.softmax(scores.masked_fill(mask, -torch.inf), -1)",
    called_from=None,
)


def make_trace(trace: NanTrace, *, settings: Settings | None = None, error: Any = None, **run: Any) -> Report:
    """A report of `gradcheck nan-trace`."""
    recording = make_recording(steps=min(trace.steps, 3), loss=2.0)
    described = replace(recording.run, **({"steps_requested": 1000, "versions": VERSIONS} | run))
    chosen = settings or Settings()
    return make_trace_report(described, rounded(recording.series), trace, chosen, error, recording.parameters)


def gradient(name: str, state: TensorState = NAN, **members: Any) -> Sink:
    return Sink("gradient", name, state, **members)


def sqrt(**members: Any) -> NanOrigin:
    """The slope of sqrt at 0."""
    known: dict[str, Any] = {
        "step": 37,
        "micro_batch": 0,
        "phase": "backward",
        "kind": "nan",
        "op": "aten::sqrt",
        "operation": 3,
        "autograd_node": "SqrtBackward0",
        "module": "encoder.layers.3.norm",
        "module_type": "RMSNorm",
        "frame": RMS_NORM,
        "cause": "sqrt-at-zero",
        "explanation": "12 of 4096 inputs are exactly 0, where the slope of sqrt is infinite (0 · inf = NaN)",
        "fix": "torch.sqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)",
        "verified": True,
        "samples": (5, 12),
        "batch_size": 32,
        "sink": "gradient of encoder.layers.0.fc.weight",
        "sink_kind": "nan",
        "spread": (31, 148),
        "path": ("sqrt", "div", "mul", "gradient of encoder.layers.0.fc.weight"),
        "input_stats": (("self", FINITE),),
    }
    return NanOrigin(**(known | members))


def softmax(**members: Any) -> NanOrigin:
    """A row of attention that is masked completely."""
    known: dict[str, Any] = {
        "phase": "forward",
        "op": "aten::_softmax",
        "operation": 2,
        "autograd_node": "",
        "module": "encoder.layers.1.attention",
        "frame": ATTENTION,
        "cause": "softmax-fully-masked",
        "explanation": "3 of 32 rows of the input are -inf throughout: softmax has nothing to share out (0 / 0 = NaN)",
        "fix": "empty = mask.all(-1, keepdim=True)\nscores = scores.masked_fill(mask & ~empty, -torch.inf)\n"
        "weights = torch.softmax(scores, -1)\nweights = weights.masked_fill(empty, 0)",
        "samples": (7,),
        "sink": "loss",
        "spread": (148, 148),
        "path": ("softmax", "matmul", "linear", "…", "nll_loss", "loss"),
        "contributors": ("-inf written by masked_fill at models/attention.py:88",),
        "input_stats": (("self", MINUS_INF),),
    }
    return sqrt(**(known | members))


def backward() -> Report:
    """One origin, in a derivative."""
    trace = NanTrace(38, 37, (gradient("encoder.layers.0.fc.weight"),), (sqrt(),), operations=operations())
    return make_trace(trace, ended="nonfinite-loss")


def two_origins() -> Report:
    """Two faults that do not need each other, in a micro-batch of four, one of them without a proof."""
    origins = (softmax(micro_batch=2), sqrt(micro_batch=2, verified=False, samples=()))
    trace = NanTrace(38, 37, (Sink("loss", "", SCALAR_NAN, micro_batch=2),), origins, skipped=2)
    return make_trace(trace, accumulate=4, max_norm=1.0, precision="fp16", uses_scaler=True)


def baseline() -> Report:
    """One origin is new, the other was known."""
    report = two_origins()
    known, new = (one.fingerprint for one in report.diagnosis.findings)
    return replace(report, comparison=Comparison("gradcheck-baseline.json", new=(new,), known=(known,)))


def baseline_kept() -> Report:
    """The origin was accepted: the run passes."""
    report = backward()
    (found,) = report.diagnosis.findings
    comparison = Comparison("gradcheck-baseline.json", accepted={found.fingerprint: "only with the debug batch"})
    return replace(report, comparison=comparison, exit_code=0)


def data() -> Report:
    """The batch was bad."""
    frame = Frame(Location("train.py", 17), "Net.forward", "x = self.fc1(x)", "self.fc1(x)")
    origin = sqrt(
        step=3,
        phase="data",
        op="",
        operation=-1,
        autograd_node="",
        module="fc1",
        frame=frame,
        source="batch:['image']",
        cause="batch-nonfinite",
        explanation="the batch's ['image'] holds 1 NaN of 3,072 values: sample 9, at [9, 0, 4, 31]",
        fix="x = torch.nan_to_num(x)  # or drop the sample in the Dataset",
        samples=(9,),
        sink="loss",
        spread=(148, 148),
        path=("batch:['image']", "linear", "nll_loss", "loss"),
    )
    return make_trace(NanTrace(4, 3, (Sink("loss", "", SCALAR_NAN),), (origin,)), seed=None)


def not_reproduced() -> Report:
    """The replay was finite."""
    sinks = tuple(gradient(f"blocks.{index}.fc.weight") for index in range(11))
    notes = ("scatter_add on cuda adds in a different order each time", "the batch was the same, bit for bit")
    return make_trace(NanTrace(12, 11, sinks, reproduced=False, notes=notes), device="cuda:0")


def raised() -> Report:
    """Torch refused a NaN before it reached the loss."""
    frame = Frame(Location("policy.py", 61), "Policy.forward", "return Normal(mean, (x * log_std).exp())")
    origin = sqrt(
        phase="forward",
        kind="inf",
        op="aten::exp",
        autograd_node="",
        module="policy",
        frame=frame,
        cause="",
        explanation="",
        fix="",
        samples=(),
        sink="error scale",
        sink_kind="inf",
        spread=(0, 0),
        path=("exp", "error scale"),
    )
    error = "ValueError: Expected parameter scale (Tensor of shape (32, 128)) of distribution Normal to be positive"
    sinks = (Sink("error", "scale", replace(FINITE, positive_inf=2)),)
    return make_trace(NanTrace(38, 37, sinks, (origin,), error=error))


def optimizer() -> Report:
    """Adam divides by a second moment of 0; the run goes over one epoch."""
    frame = Frame(Location("train.py", 9), "build", "optimizer = torch.optim.Adam(model.parameters(), eps=0)")
    origin = sqrt(
        step=0,
        phase="optimizer",
        op="aten::_foreach_addcdiv_",
        autograd_node="",
        module="",
        frame=frame,
        cause="adam-eps-zero",
        explanation="64 of 64 elements of the second moment are exactly 0, and eps is 0 (0 / 0 = NaN)",
        fix="torch.optim.Adam(model.parameters(), eps=1e-8)",
        samples=(),
        sink="parameter encoder.bias",
        spread=(1, 148),
        path=("addcdiv", "parameter encoder.bias"),
    )
    notes = ("the model is compiled: it was replayed uncompiled",)
    return make_trace(NanTrace(1, 0, (Sink("parameter", "encoder.bias", NAN),), (origin,), notes=notes))


def hostile() -> Report:
    """Names that try to act on the terminal, everywhere."""
    evil = HOSTILE_NAMES[1]
    frame = Frame(Location(f"{evil}.py", 3), evil, f"x = '[red]{evil}'", evil, Location(evil, 1))
    origins = tuple(
        sqrt(
            module=name,
            frame=frame,
            op=name,
            autograd_node=name,
            explanation=f"{name} is [b]bad[/b]",
            fix=f"x = '{name}'\n\tif x: {name}",
            path=(name, "loss"),
            contributors=(name,),
            cause=name,
            source=name,
        )
        for name in HOSTILE_NAMES
    )
    trace = NanTrace(38, 37, (Sink("loss", evil, SCALAR_NAN),), origins, error=evil, notes=(evil,))
    return make_trace(trace, target="[red]evil.py:\x1b[31mmake")


def operations() -> tuple[Operation, ...]:
    """The tape of a step: a mask of -inf, used up by softmax, and sqrt with its derivative."""
    mask = Frame(Location("models/attention.py", 88), "f", "scores.masked_fill(mask, -inf)")
    norm = "encoder.layers.3.norm"
    return (
        operation(0, "aten::masked_fill", MINUS_INF, FINITE, frame=mask, module="encoder", writes_constant=True),
        operation(1, "aten::_softmax", FINITE, MINUS_INF, frame=ATTENTION, module="encoder"),
        operation(2, "aten::sqrt", replace(FINITE, low=-1.0), FINITE, frame=RMS_NORM, module=norm),
        operation(3, "aten::div", NAN, FINITE, phase="backward", node="SqrtBackward0", forward=2),
        operation(4, "mylib::scale", NAN, NAN, phase="backward", node="ScaleBackward", frame=RMS_NORM),
        operation(5, "aten::empty", NAN, phase="optimizer"),
    )


def operation(index: int, name: str, output: TensorState, *inputs: TensorState, **members: Any) -> Operation:
    operands = tuple(Operand("self", state) for state in inputs)
    return Operation(index, name, "default", members.pop("phase", "forward"), 0, operands, (output,), **members)


TRACES: Mapping[str, Report] = {
    "trace-clean": make_trace(NanTrace(1000)),
    "trace-skipped": make_trace(NanTrace(118, skipped=3), precision="fp16", uses_scaler=True),
    "trace-backward": backward(),
    "trace-two-origins": two_origins(),
    "trace-data": data(),
    "trace-not-reproduced": not_reproduced(),
    "trace-raised": raised(),
    "trace-optimizer": optimizer(),
    "trace-hostile": hostile(),
    "trace-baseline": baseline(),
    "trace-baseline-kept": baseline_kept(),
}
