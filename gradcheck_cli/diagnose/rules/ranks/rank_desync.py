"""# GC702 rank-desync

## What it detects

Parameters or buffers whose values are not the same on all ranks.

## Why it matters

Ranks that share gradients are meant to hold one model. Where its copies come apart, each rank computes gradients for
another model, and their average is right for none; what is saved is rank 0's copy, which nobody has validated as such.
Nothing fails and the loss may still fall. PyTorch's page "DistributedDataParallel" says what it takes over from rank 0
(parameters once, when it wraps; buffers before each forward pass) and what it leaves to you.

## How to fix

1. If all parameters differ: wrap the model so that its gradients are synchronised, after which all ranks start from
   rank 0's weights; or give every rank the same seed before the model is made, and the same checkpoint.
2. If only some do: make them part of the module that is wrapped, before it is wrapped, and change parameters by hand on
   all ranks alike.
3. If they were the same at first: look for a step, a clip or a skipped step that only some ranks make.
4. Buffers: broadcast or average them, `torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)` for batch norm.

## How it decides

By checksums of the values, which differ if one bit does, taken every so often; the step is that of the first check that
showed it, and the ranks are those unlike rank 0 in it. One error if it is all trainable parameters; else one for the
outermost module of which all parameters differ, or for a parameter next to others that do not, and one for those whose
names differ by their numbers only. One warning for buffers, where parameters do not all differ. Running means and
variances of normalisation layers (`running_mean`, `running_var`) are information: each rank updates them with its own
batches, also where all is well. Shards are not compared, nor are torch's own batch norms' statistics, nor buffers that
DistributedDataParallel broadcasts before each forward pass. Not evaluated with one rank or without a check.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.diagnose.rules.ranks.places import ONE_RANK, list_ranks
from gradcheck_cli.diagnose.selection import by_pattern, by_topmost_module
from gradcheck_cli.diagnose.wording import count, list_names
from gradcheck_cli.ranks import Desync, Ranks
from gradcheck_cli.records import Finding, ParameterInfo, Recording, Severity

RUNNING = ("running_mean", "running_var")
NEVER_EQUAL = {
    "none": "the gradients are not synchronised: wrap the model, or run with --strategy ddp or fsdp2",
    "": "wrap the model after it is complete, or set the same seed on every rank before the model is made",
}
PART = "make it part of the module before that is wrapped; change parameters by hand on all ranks alike"
LATER = "look for an optimizer step, a clip or a skipped step that only some ranks make"


@rule("GC702", "rank-desync", Severity.ERROR)
def check(recording: Recording, limits: Limits) -> Iterator[Outcome]:
    ranks = recording.ranks
    if ranks is None:
        return
    if ranks.size < 2 or not ranks.checked:
        yield check.skip(ONE_RANK if ranks.size < 2 else "parameters and buffers of the ranks were not compared")
        return
    parameters = {one.name: one for one in ranks.desyncs if not one.is_buffer}
    trainable = {info.name for info in recording.parameters if info.requires_grad}
    if parameters and trainable <= parameters.keys():
        yield report_all(ranks, list(parameters.values()))
        return
    yield from report_some(recording.parameters, ranks, parameters)
    running = [one for one in ranks.desyncs if one.is_buffer and one.name.endswith(RUNNING)]
    other = [one for one in ranks.desyncs if one.is_buffer and not one.name.endswith(RUNNING)]
    if other:
        yield report_buffers(ranks, other)
    if running:
        yield report_running(ranks, running)


def report_all(ranks: Ranks, differing: Sequence[Desync]) -> Finding:
    later = min(one.step for one in differing) > ranks.checked[0]
    hint = NEVER_EQUAL.get(ranks.strategy) or (LATER if later else NEVER_EQUAL[""])
    where = "came apart between ranks" if later else "is not the same on all ranks"
    return check.finding(
        f"the model {where}: all {count(len(differing), 'parameter')} that train differ {describe(ranks, differing)}"
        if len(differing) > 1
        else f"the model {where}: {differing[0].name} differs {describe(ranks, differing)}",
        hint,
        step=first(differing),
        evidence={**evidence(ranks, differing), "what": "all parameters"},
    )


def report_some(all_of: Sequence[ParameterInfo], ranks: Ranks, found: dict[str, Desync]) -> Iterator[Finding]:
    """One finding for each outermost module that differs as a whole, like ones together."""
    groups = by_topmost_module([info for info in all_of if info.name in found], all_of)
    for layer, like in by_pattern(list(groups)).items():
        differing = [found[info.name] for name in like for info in groups[name]]
        places = f" ({len(like)} of them)" if len(like) > 1 else ""
        later = first(differing) > ranks.checked[0]
        yield check.finding(
            f"{layer}{places} differs {describe(ranks, differing)}, while other parameters are the same on all ranks",
            f"{PART}; {LATER}" if later else PART,
            layer=layer,
            step=first(differing),
            evidence={**evidence(ranks, differing), "what": "some parameters"},
        )


def report_buffers(ranks: Ranks, differing: Sequence[Desync]) -> Finding:
    return check.finding(
        f"{count(len(differing), 'buffer')} ({list_names([one.name for one in differing], 3)})"
        f" {'differs' if len(differing) == 1 else 'differ'} {describe(ranks, differing)}",
        "broadcast or average what forward() writes into buffers, or make it of what all ranks have in common",
        severity=Severity.WARNING,
        step=first(differing),
        evidence={**evidence(ranks, differing), "what": "buffers"},
    )


def report_running(ranks: Ranks, differing: Sequence[Desync]) -> Finding:
    return check.finding(
        f"each rank has running statistics of its own batches: {count(len(differing), 'buffer')}"
        f" ({list_names([one.name for one in differing], 3)}) {describe(ranks, differing)}",
        "expected of batch norm; with small batches a rank, convert_sync_batchnorm makes them those of all ranks",
        severity=Severity.INFO,
        step=first(differing),
        evidence={**evidence(ranks, differing), "what": "running statistics"},
    )


def describe(ranks: Ranks, differing: Sequence[Desync]) -> str:
    """Between whom, and since when."""
    step = first(differing)
    before = max((check for check in ranks.checked if check < step), default=None)
    since = f"since step {step}" + (
        ", the first check" if before is None else f" at the latest, after step {before} not yet"
    )
    return f"between rank 0 and {list_ranks(all_ranks(differing))} {since}"


def evidence(ranks: Ranks, differing: Sequence[Desync]) -> dict[str, Any]:
    return {
        "names": [one.name for one in differing],
        "step": first(differing),
        "differing_ranks": all_ranks(differing),
        "ranks": ranks.size,
        "strategy": ranks.strategy,
        "checked": list(ranks.checked),
    }


def first(differing: Iterable[Desync]) -> int:
    """The first step that shows one of them."""
    return min(one.step for one in differing)


def all_ranks(differing: Iterable[Desync]) -> list[int]:
    """The ranks on which one of them differs."""
    return sorted({rank for one in differing for rank in one.ranks})
