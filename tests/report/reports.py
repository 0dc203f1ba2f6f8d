"""Reports of made-up runs: what the renderers are tested on.

Every float is rounded to six digits, so that golden files do not depend on a machine's mathematics library.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np

from gradcheck_cli.comparison import Comparison
from gradcheck_cli.diagnose.layers import summarise
from gradcheck_cli.diagnose.linking import link
from gradcheck_cli.records import (
    Diagnosis,
    Finding,
    Location,
    NotEvaluated,
    Recording,
    Report,
    RuleInfo,
    Severity,
)
from tests.diagnose.recordings import make_recording

LONG = "x" * 100
HOSTILE_NAMES = (
    "[red]fc[/red]",
    "evil\x1b[2Jfc\x07",
    "a\nb",
    "卷积.層",
    "\u202eright-to-left",
    ":warning: [/]",
    "x" * 100,
)
RULE_DOCUMENTATION = "## What it detects\n\nSomething about\n{name}.\n\n## Why it matters\n\nIt does."
VERSIONS = {"torch": "2.13.0", "python": "3.11.9"}


def make_report(
    recording: Recording, findings: Sequence[Finding] = (), skipped: Sequence[NotEvaluated] = (), **fields: Any
) -> Report:
    """A report of `gradcheck profile`."""
    worst = max((finding.severity.rank for finding in findings), default=0)
    codes = {(outcome.code, outcome.name) for outcome in (*findings, *skipped)}
    trainable = sum(parameter.numel for parameter in recording.parameters if parameter.requires_grad)
    members: dict[str, Any] = {
        "command": "profile",
        "run": recording.run,
        "series": rounded(recording.series),
        "layers": tuple(rounded(layer) for layer in summarise(recording, findings)),
        "diagnosis": Diagnosis(tuple(findings), tuple(skipped)),
        "rules": tuple(make_rule(code, name) for code, name in sorted(codes)),
        "parameter_count": sum(parameter.numel for parameter in recording.parameters),
        "trainable_count": trainable,
        "exit_code": int(worst == 2),
        "recording": recording,
    }
    return Report(**(members | fields))


def rounded(value: Any) -> Any:
    """A dataclass with its floats at six significant digits."""

    def round_one(member: Any) -> Any:
        if isinstance(member, np.ndarray) and member.dtype == np.float64:
            return np.array([float(f"{x:.6g}") for x in member.ravel()]).reshape(member.shape)
        return float(f"{member:.6g}") if isinstance(member, float) else member

    return replace(value, **{field.name: round_one(getattr(value, field.name)) for field in fields(value)})


def make_rule(code: str, name: str) -> RuleInfo:
    return RuleInfo(code, name, Severity.WARNING, RULE_DOCUMENTATION.format(name=name))


def clean() -> Report:
    """A three-layer MLP in which nothing is wrong."""
    parameters = {"0.weight": (64, 64), "0.bias": (64,), "2.weight": (32, 64), "2.bias": (32,), "4.weight": (10, 32)}
    recording = make_recording(
        steps=6,
        parameters=parameters,
        loss=[2.31, 2.2, 2.05, 1.9, 1.7, 1.55],
        norms={name: np.linspace(0.8, 0.4, 6) / (1 + index) for index, name in enumerate(parameters)},
        versions=VERSIONS,
    )
    return make_report(recording, skipped=[NotEvaluated("GC204", "gradient-growth", "needs 20 steps, the run has 6")])


def sick() -> Report:
    """A CNN with findings of every severity."""
    parameters: dict[str, tuple[int, ...]] = {}
    for stage in range(4):
        for block in range(2):
            parameters[f"stages.{stage}.{block}.conv.weight"] = (16, 16, 3, 3)
            parameters[f"stages.{stage}.{block}.norm.weight"] = (16,)
    parameters |= {"head.weight": (10, 16), "head.bias": (10,), "aux.weight": (10, 16)}
    norms: dict[str, Any] = {
        name: np.full(8, 10.0 ** -(index / 4)) for index, name in enumerate(reversed(list(parameters)))
    }
    recording = make_recording(
        steps=8,
        parameters=parameters,
        frozen=["stages.0.0.conv.weight"],
        modules={f"stages.{s}.{b}.conv": "Conv2d" for s in range(4) for b in range(2)}
        | {f"stages.{s}.{b}.norm": "BatchNorm2d" for s in range(4) for b in range(2)},
        loss=[2.3, 2.3, 2.29, 2.31, 2.3, 2.28, 2.3, 2.29],
        norms=norms | {"aux.weight": None, "stages.0.0.conv.weight": None},
        grad_norm_clipped=0.5,
        steps_requested=50,
        max_norm=0.5,
        accumulate=4,
        ended="data-exhausted",
        notes=("no optimizer: the weights stay where they are",),
        versions=VERSIONS,
    )
    return make_report(recording, sick_findings(), [NotEvaluated("GC201", "gradient-spike", "needs 20 steps")])


def sick_findings() -> list[Finding]:
    fix = "initialise with nn.init.kaiming_normal_, normalise between the layers, or add residual connections"
    return [
        Finding(
            "GC103",
            "unused-parameter",
            Severity.INFO,
            "aux.weight got no gradient in any step",
            "remove it, or use its output in the loss",
            layer="aux",
            evidence={"steps": 8},
        ),
        Finding(
            "GC101",
            "vanishing-gradient",
            Severity.ERROR,
            "the gradient with respect to the outputs shrinks by 4.6 decades from stages.3.1.conv to stages.0.0.conv,"
            " 0.66 decades a layer: the first layers hardly learn",
            fix,
            layer="stages.*.*.conv",
            step=2,
            evidence={"slope": 4.6, "limit": 4.0, "signal": float("nan"), "layers": ("stages.0.0.conv", "head")},
            location=Location("models/cnn.py", 34),
        ),
        *[
            Finding(
                "GC306",
                "weight-blowup",
                Severity.WARNING,
                f"stages.{stage}.1.norm.weight grew tenfold",
                "lower the learning rate",
                layer=f"stages.{stage}.1.norm",
                step=7,
            )
            for stage in (2, 3)
        ],
    ]


def non_finite() -> Report:
    """A run whose gradients turned infinite and then NaN, under a scaler."""
    nan, inf = float("nan"), float("inf")
    recording = make_recording(
        steps=4,
        loss=[2.3, 2.1, inf, nan],
        norms={
            "fc1.weight": [0.1, 0.2, inf, nan],
            "fc1.bias": [0.1, 0.1, 0.1, nan],
            "fc2.weight": [nan] * 4,
            "fc2.bias": 0.0,
        },
        skipped=[2],
        precision="fp16",
        uses_scaler=True,
        ended="nonfinite-loss",
        steps_requested=50,
        versions=VERSIONS,
    )
    statistics = recording.statistics
    zero_fraction = np.where(np.isnan(statistics.norm), 0.0, statistics.zero_fraction)
    recording = replace(recording, statistics=replace(statistics, zero_fraction=zero_fraction))
    finding = Finding(
        "GC302",
        "nonfinite-gradient",
        Severity.ERROR,
        "fc2.weight has NaN in its gradient from step 0 on",
        "",
        layer="fc2.weight",
        step=0,
        evidence={"first": nan, "largest": inf, "least": -inf},
    )
    return make_report(recording, [finding])


def folded() -> Report:
    """A GPT with twelve blocks, one of them sick."""
    parts = {
        "ln_1": (64,),
        "attn.c_attn": (192, 64),
        "attn.c_proj": (64, 64),
        "ln_2": (64,),
        "mlp.c_fc": (256, 64),
        "mlp.c_proj": (64, 256),
    }
    parameters: dict[str, tuple[int, ...]] = {"transformer.wte.weight": (65, 64), "transformer.wpe.weight": (128, 64)}
    for block in range(12):
        parameters |= {f"transformer.h.{block}.{name}.weight": shape for name, shape in parts.items()}
    parameters["transformer.ln_f.weight"] = (64,)
    norms: dict[str, Any] = {name: 0.0103 + index % 7 / 97 for index, name in enumerate(parameters)}
    norms |= {f"transformer.h.{block}.attn.c_proj.weight": 10.0 ** -(block % 5) for block in range(12)}
    recording = make_recording(
        steps=3,
        parameters=parameters,
        modules={name.rpartition(".")[0]: "LayerNorm" for name in parameters if ".ln_" in name},
        loss=[4.17, 3.9, 3.5],
        norms=norms | {"transformer.h.7.mlp.c_fc.weight": 0.0},
        precision="bf16",
        versions=VERSIONS,
    )
    finding = Finding(
        "GC104",
        "zero-gradient",
        Severity.ERROR,
        "the gradient is exactly zero in every step",
        "look for a detach() or a mask that covers everything",
        layer="transformer.h.7.mlp.c_fc",
    )
    return make_report(recording, [finding])


def hostile() -> Report:
    """Names that try to act on the terminal."""
    recording = make_recording(
        steps=3,
        parameters={f"{name}.weight": (4, 4) for name in HOSTILE_NAMES},
        loss=[1.0, 0.9, 0.8],
        norms={f"{name}.weight": 0.1 for name in HOSTILE_NAMES},
        versions=VERSIONS,
    )
    recording = replace(recording, run=replace(recording.run, target="models/[bold]evil[/bold].py:\x1b[31mmake"))
    findings = [
        Finding(
            "GC107", "large-gradient", Severity.WARNING, f"{name} is [b]large[/b]", "→ clip \x1b[0m", layer=name, step=1
        )
        for name in HOSTILE_NAMES
    ]
    return make_report(recording, findings)


def failed() -> Report:
    """User code that raised after two steps."""
    recording = make_recording(
        steps=2, loss=[2.3, 2.2], norms={"fc1.weight": 0.1}, ended="failed", steps_requested=50, versions=VERSIONS
    )
    error = 'train.py:build raised in step 2\n  File "train.py", line 12, in step\nValueError: bad [batch]'
    return make_report(recording, error=error, exit_code=2)


def linked() -> Report:
    """Twelve sigmoid layers, of which one cause explains most of what is found, and two others the rest."""
    names = [f"layers.{index}" for index in range(12)]
    decades = dict(zip(names, range(-14, -2), strict=True))
    recording = make_recording(
        steps=4,
        parameters={f"{name}.weight": (64, 64) for name in names},
        loss=[2.4, 2.3, 2.3, 2.3],
        norms={f"{name}.weight": 640 * 10.0**decade for name, decade in decades.items()},
        output_rms={name: 0.5 + index / 100 for index, name in enumerate(names)},
        output_grad_rms={name: 10.0**decade for name, decade in decades.items()},
        versions=VERSIONS,
    )
    return make_report(recording, link(linked_findings(names), recording))


def linked_findings(layers: Sequence[str]) -> list[Finding]:
    saturated = Finding(
        "GC602",
        "saturated-activation",
        Severity.WARNING,
        "97% of the elements of the sigmoid behind layers.0 are saturated, and 91% or more at 11 places like it: the"
        " derivative is next to zero there",
        "bring its inputs to a size of about one: nn.init.xavier_normal_ for the weights, zero for the biases",
        layer="layers.*",
        evidence={"layers": layers},
        location=Location("models/deep.py", 12),
    )
    vanishing = Finding(
        "GC101",
        "vanishing-gradient",
        Severity.ERROR,
        "the gradient shrinks by 11.0 decades toward the input: RMS of dL/d(output) is 1.0e-03 at layers.11 but 1.0e-14"
        " at layers.0, 1.00 decades a layer over 12 layers",
        "the forward signal keeps its size, so the activations saturate",
        layer="layers.*",
        evidence={"first_layer": layers[0], "last_layer": layers[-1]},
    )
    tiny = [
        Finding("GC108", "tiny-gradient", Severity.INFO, f"gradient norm below 1e-08 in {layer}", "none", layer=layer)
        for layer in layers[:3]
    ]
    through_time = [
        Finding(
            "GC606",
            "exploding-through-time",
            Severity.ERROR,
            "the gradient grows by 2.2 decades through 32 time steps",
            "nn.init.orthogonal_ for the recurrent matrix",
            layer="rnn",
        ),
        Finding(
            "GC607",
            "recurrent-spectral-radius",
            Severity.INFO,
            "rnn.weight_hh_l0 has spectral radius 2.04",
            "nn.init.orthogonal_ for the recurrent matrix, or divide it by its radius",
            layer="rnn",
            evidence={"spectral_radius": 2.04},
        ),
    ]
    spike = [
        Finding("GC201", "gradient-spike", Severity.WARNING, "the norm spikes to 300 at step 2", "clip", step=2),
        Finding("GC612", "dominated-batch", Severity.INFO, "2 of 32 samples make 55% of it", "look at them", step=2),
    ]
    unused = [
        Finding("GC103", "unused-parameter", Severity.WARNING, f"{name} never ran", "delete it", layer=name)
        for name in ("aux", "extra")
    ]
    return [vanishing, *unused, *tiny, *spike, saturated, *through_time]


def baseline() -> Report:
    """A run with something new, something known and something accepted, of a model that has changed."""
    comparison = Comparison(
        baseline="gradcheck-baseline.json",
        new=("GC101:stages.*.*.conv", "GC306:stages.3.1.norm"),
        known=("GC306:stages.2.1.norm",),
        uncertain=("GC107:head",),
        accepted={"GC103:aux": "kept for export"},
        gone=("GC105:neck",),
        better=("the depth slope of stages.*.*.norm is 1.2 decades flatter",),
        renamed={"backbone.0": "stages.0", "backbone.1": "stages.1"},
        added=tuple(f"stages.{stage}.{block}.norm" for stage in range(4) for block in range(4)),
        removed=("neck",),
        not_compared=("saturated shares: the baseline was written without probes",),
    )
    by_chance = Finding("GC107", "large-gradient", Severity.WARNING, "head is large", "clip", layer="head", step=1)
    report, code = sick(), make_rule("GC107", "large-gradient")
    diagnosis = Diagnosis((*report.diagnosis.findings, by_chance), report.diagnosis.not_evaluated)
    return replace(report, diagnosis=diagnosis, rules=(*report.rules, code), comparison=comparison)


def baseline_kept() -> Report:
    """All that is found was there before, or is accepted: the run passes."""
    comparison = Comparison(
        baseline="gradcheck-baseline.json",
        known=tuple(one.fingerprint for one in sick_findings()[1:]),
        accepted={"GC103:aux": "kept for export"},
    )
    return replace(sick(), comparison=comparison, exit_code=0)


def several() -> Report:
    """A script that trains two models; of the second, one is broken."""
    first, second = replace(clean(), exit_code=1), sick()
    named = replace(first, run=replace(first.run, model="discriminator"))
    return replace(named, others=(replace(second, run=replace(second.run, model="generator")),))


REPORTS: Mapping[str, Report] = {
    "clean": clean(),
    "sick": sick(),
    "non_finite": non_finite(),
    "folded": folded(),
    "hostile": hostile(),
    "failed": failed(),
    "linked": linked(),
    "baseline": baseline(),
    "baseline-kept": baseline_kept(),
    "several": several(),
}
