"""What nan-trace found, as members of the JSON document."""

from __future__ import annotations

from typing import Any

from gradcheck_cli.tape import NanOrigin, NanTrace, Sink


def trace_members(trace: NanTrace) -> dict[str, Any]:
    """How the search went; `step` is None for a clean run."""
    return {
        "steps": trace.steps,
        "skipped": trace.skipped,
        "step": None if trace.clean else trace.step,
        "reproduced": trace.reproduced,
        "error": trace.error or None,
        "notes": trace.notes,
        "sinks": [sink_members(sink) for sink in trace.sinks],
    }


def sink_members(sink: Sink) -> dict[str, Any]:
    """A value that was not finite."""
    return {
        "what": sink.what,
        "name": sink.name,
        "micro_batch": sink.micro_batch,
        "kind": sink.state.kind,
        "numel": sink.state.numel,
        "nan": sink.state.nan,
        "inf": sink.state.inf,
    }


def origin_members(origin: NanOrigin) -> dict[str, Any]:
    """Where a non-finite value came from; texts that do not apply are empty, a line that is not known is None."""
    frame = origin.frame
    return {
        "step": origin.step,
        "micro_batch": origin.micro_batch,
        "phase": origin.phase,
        "kind": origin.kind,
        "op": origin.op,
        "autograd_node": origin.autograd_node,
        "source": origin.source,
        "module": origin.module,
        "file": frame.location.file if frame else None,
        "line": frame.location.line if frame else None,
        "function": frame.function if frame else "",
        "code": frame.code if frame else "",
        "cause": origin.cause,
        "explanation": origin.explanation,
        "fix": origin.fix,
        "verified": origin.verified,
        "samples": origin.samples,
        "samples_left": origin.samples_left,
        "batch_size": origin.batch_size,
        "sink": origin.sink,
        "sink_kind": origin.sink_kind,
        "spread": {"reached": origin.spread[0], "parameters": origin.spread[1]},
        "path": origin.path,
        "contributors": origin.contributors,
        "input_stats": [{"argument": argument, "state": state} for argument, state in origin.input_stats],
    }
