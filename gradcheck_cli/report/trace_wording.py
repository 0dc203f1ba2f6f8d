"""What nan-trace found, in sentences."""

from __future__ import annotations

from gradcheck_cli.report import figures
from gradcheck_cli.tape import NanOrigin, NanTrace, Sink, TensorState

ADJECTIVES = {"nan": "NaN", "inf": "infinite"}
NOUNS = {"nan": "NaN", "inf": "Inf"}
PLACES = {
    "forward": "in the forward pass",
    "loss": "in the loss function",
    "backward": "in backward",
    "clip": "in clip_grad_norm_",
    "optimizer": "in the optimizer's step",
}
WITHIN_MICRO_BATCH = ("forward", "loss", "backward", "data")
HOLDERS = {
    "data": "because the batch holds {}",
    "parameter": "because a parameter was {} already",
    "buffer": "because a buffer was {} already",
}


def describe_time(origin: NanOrigin, accumulate: int) -> str:
    """`step 37`, or with accumulation `step 37, micro-batch 1 of 4`, both counted from 0."""
    within = accumulate > 1 and origin.phase in WITHIN_MICRO_BATCH
    return f"step {origin.step}" + (f", micro-batch {origin.micro_batch} of {accumulate}" if within else "")


def describe_event(origin: NanOrigin, trace: NanTrace) -> str:
    """`the gradient became NaN in backward`."""
    where = describe_place(origin)
    if trace.error:
        made = "made " if origin.phase in PLACES else ""
        return f"{describe_error(trace.error)} over {NOUNS.get(origin.kind, 'a value')} {made}{where}"
    became = ADJECTIVES.get(origin.sink_kind) or ADJECTIVES.get(origin.kind, "non-finite")
    return f"{describe_subject(origin.sink)} became {became} {where}"


def describe_error(error: str) -> str:
    """`torch raised an error`, unless it says itself who did what: `the code raised ValueError: loss is nan`."""
    done = error.partition(":")[0].partition("(")[0]
    return done if " raised " in done or done == "the code called sys.exit" else "torch raised an error"


def describe_place(origin: NanOrigin) -> str:
    """`in backward`, or `because the batch holds NaN`."""
    if origin.phase in HOLDERS:
        names = NOUNS if origin.phase == "data" else ADJECTIVES
        return HOLDERS[origin.phase].format(names.get(origin.kind, "such a value"))
    return PLACES.get(origin.phase, f"in {origin.phase}")


def describe_subject(sink: str) -> str:
    """`the loss`, `the gradient`, but `parameter fc.weight`: there the name matters more than the rest of the line."""
    what = sink.partition(" ")[0]
    return f"the {what}" if what in ("loss", "gradient") else sink or "a value"


def describe_unexplained(trace: NanTrace) -> str:
    """What was seen, where no origin was found."""
    if not trace.sinks:
        seen = describe_error(trace.error) if trace.error else "a value was not finite"
    else:
        sink = trace.sinks[0]
        became = ADJECTIVES.get(sink.state.kind, "non-finite")
        subject = describe_subject(f"{sink.what} {sink.name}".strip())
        seen = describe_error(trace.error) if trace.error else f"{subject} was {became}"
    if trace.reproduced:
        return f"{seen}; where it came from could not be told"
    return f"{seen}, but not when the step was replayed"


def describe_sink(sink: Sink) -> str:
    """`the gradient of fc.weight: 4 of 96 elements are NaN`."""
    name = {"gradient": f"the gradient of {sink.name}", "loss": "the loss"}.get(sink.what, f"{sink.what} {sink.name}")
    state = sink.state
    if state.finite:
        return name
    if state.numel == 1:
        return f"{name}: {ADJECTIVES[state.kind]}"
    parts = [f"{number:,} {word}" for number, word in ((state.nan, "NaN"), (state.inf, "infinite")) if number]
    return f"{name}: {' and '.join(parts)} of {state.numel:,} elements"


def describe_state(state: TensorState) -> str:
    """`4,096 float32 values from 0 to 3.1, 12 of them 0`."""
    special = ((state.zeros, "0"), (state.nan, "NaN"), (state.inf, "infinite"))
    parts = [f"{number:,} of them {word}" for number, word in special if number]
    if state.low == state.low:  # NaN: nothing finite to give a range of
        parts.insert(0, f"from {figures.plain(state.low)} to {figures.plain(state.high)}")
    plural = "value" if state.numel == 1 else "values"
    return " ".join([f"{state.numel:,} {state.dtype} {plural}", ", ".join(parts)]).strip()


def describe_proof(origin: NanOrigin, trace: NanTrace) -> str:
    """Whether the step was finite with the origin's values made finite."""
    what = {"data": "the batch", "parameter": "the parameter", "buffer": "the buffer", "backward": "this op's gradient"}
    replaced = what.get(origin.phase, "this op's result")
    if not origin.verified:
        return f"not verified: with {replaced} made finite the step was not finite yet, or that could not be tried"
    if len(trace.origins) > 1 and all(other.verified for other in trace.origins):
        replaced = f"all {len(trace.origins)} origins"
    return f"with {replaced} made finite, the whole step is finite"


def describe_samples(origin: NanOrigin, longest: int = 10) -> str:
    """`5, 12 of 32 do it alone`."""
    samples = origin.samples
    if len(samples) == origin.batch_size > 1:
        return f"each of the {origin.batch_size} does it alone"
    shown = ", ".join(str(sample) for sample in samples[:longest])
    more = f" and {len(samples) - longest} more" if len(samples) > longest else ""
    left = f"; {origin.samples_left} more that may were not tried" if origin.samples_left else ""
    return f"{shown}{more} of {origin.batch_size} {'does' if len(samples) == 1 else 'do'} it alone{left}"


def describe_spread(origin: NanOrigin) -> str:
    """`reached 31 of 148 parameters`."""
    reached, total = origin.spread
    return f"reached {reached or 'none'} of {figures.plural(total, 'parameter')}"


def describe_path(origin: NanOrigin) -> str:
    """`sqrt → div → mul → loss`."""
    return " → ".join(describe_source(name) if name == origin.source else short(name) for name in origin.path)


def describe_source(source: str) -> str:
    """`batch['image']`, `parameter fc.weight`."""
    kind, _, name = source.partition(":")
    return f"batch{name}" if kind == "batch" else f"{kind} {name}".strip()


def short(op: str) -> str:
    """`softmax` for `aten::_softmax`."""
    return op.rpartition("::")[2].strip("_")
