"""A step as numbers with tags, for loggers that draw one curve a tag."""

from __future__ import annotations

from collections.abc import Iterator

from gradcheck_cli.step_statistics import StepStatistics


def scalars(step: StepStatistics) -> dict[str, float]:
    """The step's numbers by tag: grad_norm, say, or layer/grad_rms/NAME; what is not known is left out."""
    return dict(tagged(step))


def tagged(step: StepStatistics) -> Iterator[tuple[str, float]]:
    """Tags and numbers."""
    if step.loss is not None:
        yield "loss", step.loss
    yield "grad_norm", step.grad_norm
    yield "grad_norm_clipped", step.grad_norm_clipped
    for group, rate in enumerate(step.lr):
        yield f"lr/{group}" if len(step.lr) > 1 else "lr", rate
    if step.loss_scale is not None:
        yield "loss_scale", step.loss_scale
    yield "skipped", float(step.skipped)
    for name, statistics in step.layers.items():
        for statistic, value in statistics.items():
            yield f"layer/{statistic}/{name}".rstrip("/"), value  # the model itself has no name
