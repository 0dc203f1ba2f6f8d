"""Models as they come: wrapped by their entrypoint, or plain and unlike one another, on real ranks."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from gradcheck_cli.config import Settings
from gradcheck_cli.drive.devices import seed_everything
from gradcheck_cli.drive.ranks.group import ALONE, Group, Place, joined
from gradcheck_cli.errors import GradcheckError
from gradcheck_cli.observe.ranks.local_gradients import FSDP
from gradcheck_cli.pipeline.preparation import ignore
from gradcheck_cli.pipeline.profiling import record
from gradcheck_cli.records import Recording
from tests.distributed import targets
from tests.distributed.conftest import Pool

ULP = 2.0**-23
"""Of weights of size 1: so much is a float32 update off."""
MEASURED = {
    "series": ("loss", "grad_norm", "grad_norm_clipped", "lr", "skipped", "loss_scale", "epoch"),
    "statistics": ("has_gradient", "norm", "mean", "std", "max_abs", "zero_fraction", "nonfinite", "parameter_norm"),
    "probes": ("steps", "update_ratio", "parameter_max", "output_rms", "output_grad_rms"),
}
HERE = "tests.distributed.targets:"
SETTINGS = Settings(steps=4, device="cpu", probe_every=2)
Case = tuple[str, Settings]


def case(target: str, settings: Settings = SETTINGS, **given: Any) -> Case:
    return HERE + target, replace(settings, set=given)


def assert_same(found: Recording, expected: Recording) -> None:
    slack = {"mean": 1e-5 * np.nan_to_num(expected.statistics.std), "update_ratio": ULP}
    for part, names in MEASURED.items():
        for name in names:
            one, other = getattr(getattr(found, part), name), getattr(getattr(expected, part), name)
            assert one.shape == other.shape, name
            assert np.all(np.isclose(one, other, 1e-5, slack.get(name, 1e-12), equal_nan=True)), (name, one, other)
    assert np.allclose(found.final_parameter_norm, expected.final_parameter_norm, rtol=1e-5)
    for name in ("name", "shape", "numel", "aliases", "group", "requires_grad"):
        described = ([getattr(info, name) for info in one.parameters] for one in (found, expected))
        assert next(described) == next(described), name
    assert [(one.name, one.probe) for one in found.modules] == [(one.name, one.probe) for one in expected.modules]


def recordings(group: Group, *cases: Case) -> list[Recording]:
    return [record(target, settings, ignore, group).recording for target, settings in cases]


def refusals(group: Group, *cases: Case) -> list[str]:
    found = []
    for target, settings in cases:
        with pytest.raises(GradcheckError) as caught:
            record(target, settings, ignore, group)
        found.append(f"{type(caught.value).__name__}: {caught.value.message} | {caught.value.hint}")
    return found


def assert_like_one_process(ranks: Pool, size: int, cases: list[Case], degree: int | None = None) -> list[Recording]:
    """Each case on `size` ranks is what one process makes of the same global batches of 8; the recordings of rank 0."""
    sized = [(one, replace(how, set={**how.set, "batch_size": 8 // (degree or size)})) for one, how in cases]
    found = ranks(size, recordings, *sized)
    for number, (target, settings) in enumerate(cases):
        alone = replace(settings, strategy=None, set={**settings.set, "batch_size": 8})
        (expected,) = recordings(ALONE, (target, alone))
        try:
            assert_same(found[0][number], expected)
        except AssertionError as error:
            raise AssertionError(f"{target} {settings.set}: {error}") from error
        assert all(np.array_equal(one[number].series.grad_norm, found[0][number].series.grad_norm) for one in found)
    return found[0]


def test_models_in_ddp_or_fsdp2_measure_what_one_process_does(ranks: Pool) -> None:
    twice = replace(SETTINGS, accumulate=2)
    cases = [
        case("wrapped", find_unused_parameters=True),
        case("wrapped", twice, gradient_as_bucket_view=True),
        case("wrapped", twice, static_graph=True),
        case("wrapped", compiled="inside"),
        case("wrapped", compiled="outside"),
        case("wrapped", twice, wrapper="fsdp2"),
    ]
    found = assert_like_one_process(ranks, 2, cases)
    assert [(one.ranks.strategy, one.ranks.finds_unused) for one in found if one.ranks] == [
        ("own", True),
        ("own", False),
        ("own", True),
        ("own", False),
        ("own", False),
        ("own", True),
    ]
    known = [bool(np.isfinite(one.ranks.grad_norm).all()) for one in found if one.ranks]
    assert known[:2] + known[3:] == [True, False, True, True, True]  # a bucket's view is summed up where it is
    assert all(not one.ranks.desyncs for one in found if one.ranks)


def test_split_tensors_measure_what_one_process_does(ranks: Pool) -> None:
    clipped = replace(SETTINGS, clip=0.5)
    found = assert_like_one_process(ranks, 2, [case("split"), case("split", clipped, by_position=True)], degree=1)
    assert all(np.isnan(one.ranks.grad_norm).all() for one in found if one.ranks)
    assert "the 2 ranks that split tensors take every batch together" in found[0].run.notes


def test_meshes_of_two_dimensions_measure_what_one_process_does(ranks: Pool) -> None:
    clipped = replace(SETTINGS, clip=0.5)
    found = assert_like_one_process(ranks, 4, [case("wrapped", clipped, wrapper="fsdp2", mesh=(2, 2))])
    assert found[0].ranks is not None
    assert np.isfinite(found[0].ranks.grad_norm).all()
    cases = [case("split", clipped, shard=True), case("split", shard=True, by_position=True)]
    found = assert_like_one_process(ranks, 4, cases, degree=2)
    assert all(np.isnan(one.ranks.grad_norm).all() for one in found if one.ranks)  # each has half a gradient
    assert "the 2 ranks that split tensors take every 2nd batch together" in found[0].run.notes


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_plain_models_of_all_kinds(ranks: Pool, strategy: str) -> None:
    chosen = replace(SETTINGS, strategy=strategy)
    kinds = ["", "nested", "tied", "tied in a list", "frozen", "criterion", "schedule", "plateau"]
    kinds += ["sparse", "complex", "hidden criterion"] if strategy == "ddp" else []
    cases = [case("words", chosen, kind=kind) for kind in kinds]
    cases += [
        case("words", chosen, optimizer="none"),
        case("words", replace(chosen, optimizer="adamw", lr=1e-3, eval=True)),
        case("checkpointed", chosen),
    ]
    found = assert_like_one_process(ranks, 2, cases)
    assert all(one.ranks.strategy == strategy and not one.ranks.desyncs for one in found if one.ranks)
    assert all(np.isfinite(one.ranks.grad_norm).all() for one in found if one.ranks)


def test_fp16_with_its_scaler(ranks: Pool) -> None:
    for strategy in ("ddp", "fsdp2"):
        settings = replace(SETTINGS, strategy=strategy, precision="fp16", steps=2)
        longer = case("residual", replace(settings, steps=8), batch_size=4)
        (found, overflowed), (_, also) = ranks(2, recordings, case("residual", settings, batch_size=4), longer)
        alone = case("residual", replace(settings, strategy=None, accumulate=2), batch_size=4)
        assert_same(found, recordings(ALONE, alone)[0])
        assert overflowed.series.skipped.any()
        assert np.array_equal(overflowed.series.skipped, also.series.skipped)
        assert np.array_equal(overflowed.series.loss_scale, also.series.loss_scale)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_weights_from_a_file(ranks: Pool, strategy: str, tmp_path: Path) -> None:
    model = targets.residual()["model"]
    nn.init.constant_(model.last.bias, 7.0)
    torch.save({"model": model.state_dict()}, tmp_path / "weights.pt")
    settings = replace(SETTINGS, strategy=strategy, checkpoint=str(tmp_path / "weights.pt"), steps=1)
    found = ranks(2, recordings, case("residual", settings, batch_size=4))[0][0]
    assert_same(found, recordings(ALONE, case("residual", replace(settings, strategy=None), batch_size=8))[0])
    assert found.statistics.parameter_norm[0, -1] == pytest.approx(7.0)


def test_what_cannot_be_is_refused_in_words(ranks: Pool) -> None:
    ddp, fsdp2 = replace(SETTINGS, strategy="ddp"), replace(SETTINGS, strategy="fsdp2")
    found, also = ranks(
        2,
        refusals,
        case("words", fsdp2, optimizer="adagrad"),
        case("words", fsdp2, kind="sparse"),
        case("words", fsdp2, kind="hidden criterion"),
        case("wrapped", wrapper="fsdp1"),
        case("checkpointed", ddp, reentrant=True),
    )
    expected = ["has state of the whole", "sparse gradients", "neither the model's nor", "fully_shard", "use_reentrant"]
    assert found == also
    assert all(one.startswith("TargetError: ") for one in found)
    assert all(words in one for words, one in zip(expected, found, strict=True))


def test_reentrant_checkpoints_in_a_ddp_of_their_own(ranks: Pool) -> None:
    fsdp2 = replace(SETTINGS, strategy="fsdp2")
    assert_like_one_process(
        ranks, 2, [case("checkpointed", reentrant=True, own=True), case("checkpointed", fsdp2, reentrant=True)]
    )


def test_batch_norm_is_no_desync(ranks: Pool) -> None:
    cases = [case("small", replace(SETTINGS, strategy=strategy)) for strategy in ("ddp", "fsdp2")]
    assert [one.ranks.desyncs for one in ranks(2, recordings, *cases)[0]] == [(), ()]


def test_a_branch_that_some_ranks_do_not_take(ranks: Pool) -> None:
    ddp = replace(SETTINGS, strategy="ddp")
    cases = [case("branches", ddp), case("branches", replace(ddp, accumulate=2)), case("branches", find_unused=True)]
    sized = [(target, replace(settings, set={**settings.set, "batch_size": 4})) for target, settings in cases]
    found = ranks(2, recordings, *sized)[0]
    for one, (target, settings) in zip(found, cases, strict=True):
        (expected,) = recordings(ALONE, (target, replace(settings, strategy=None)))
        for name in ("norm", "std", "max_abs", "parameter_norm"):
            both = getattr(one.statistics, name), getattr(expected.statistics, name)
            assert np.allclose(*both, rtol=1e-5), name
    unused = [(one.parameter, one.step, one.steps, one.ranks) for one in found[0].ranks.unused]
    assert unused == [("side.weight", 0, 4, (1,)), ("side.bias", 0, 4, (1,))]
    assert all(one.ranks.unused == found[0].ranks.unused for one in found)
    assert [one.ranks.finds_unused for one in found] == [True, True, True]


def with_patience(group: Group, seconds: float, function: Callable[..., Any], *arguments: Any) -> Any:
    """In a group that waits no longer."""
    rank = int(os.environ["RANK"])
    with joined(Place(rank, int(os.environ["WORLD_SIZE"]), rank), "cpu", seconds) as own:
        return function(own, *arguments)


WAITING = [
    case("branches", find_unused=False, batch_size=4),
    case("branches", find_unused=False, bucket_view=True, batch_size=4),
    case("branches", replace(SETTINGS, accumulate=2), find_unused=False, batch_size=4),
    case("branches", replace(SETTINGS, strategy="fsdp2"), batch_size=4),
]


@pytest.mark.parametrize("waiting", WAITING)
def test_a_rank_that_leaves_others_waiting_says_so(ranks: Pool, waiting: Case) -> None:
    """They wait in their backward until this one's process ends, or time is up."""
    _, (found,) = ranks(2, with_patience, 1.0, refusals, waiting, join=False)
    assert found.startswith("UnusedParameterError: rank 1 did not use side.weight and 1 more")
    assert "GC705" in found
    assert ("find_unused_parameters=True" if waiting[1].strategy is None else "--strategy ddp") in found


def trained(group: Group, how: str) -> list[torch.Tensor]:
    """Parameters, buffers, optimizer state and random state after some steps, with gradcheck or by hand."""
    settings = replace(SETTINGS, steps=20, probe_every=1, clip=0.5, strategy="ddp")
    if how == "gradcheck":
        record(HERE + "kept", settings, ignore, group)
    else:
        train_by_hand(settings)
    (parts,) = targets.KEPT
    moments = [state["momentum_buffer"] for state in parts["optimizer"].state.values()]
    return [*parts["model"].state_dict().values(), *moments, torch.get_rng_state()]


def train_by_hand(settings: Settings) -> None:
    seed_everything(settings.seed)
    parts = targets.kept()
    model = DistributedDataParallel(parts["model"], find_unused_parameters=True)
    if dist.get_rank():
        seed_everything(settings.seed + dist.get_rank())
    for x, y in islice(parts["dataloader"], settings.steps):
        parts["optimizer"].zero_grad()
        parts["loss_fn"](model(x), y).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        parts["optimizer"].step()


def test_training_is_what_it_is_without_gradcheck(ranks: Pool) -> None:
    watched, by_hand = ranks(2, trained, "gradcheck"), ranks(2, trained, "by hand")
    for one, other in zip(watched, by_hand, strict=True):
        assert len(one) == len(other) > 10
        assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))


def places() -> list[Any]:
    """Where gradcheck reaches into torch for many ranks."""
    fsdp = sys.modules[FSDP]
    homes = (dist, dist.distributed_c10d)
    found = [DistributedDataParallel.forward, fsdp.foreach_reduce, torch.autograd.backward, dist.is_initialized()]
    return [*found, *(home.init_process_group for home in homes)]


def left_behind(group: Group, target: str, settings: Settings) -> tuple[bool, bool]:
    """Whether torch is as it was, and the model has no more hooks, in a group of its own."""
    import_module(FSDP)
    before = places()
    with suppress(GradcheckError):
        with_patience(group, 2.0, recordings, (target, settings))
    model = targets.KEPT[0]["model"]
    return places() == before, any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_nothing_is_left_behind(ranks: Pool) -> None:
    """Also where a rank fails."""
    ddp, fsdp2 = (replace(SETTINGS, strategy=strategy, steps=2) for strategy in ("ddp", "fsdp2"))
    assert ranks(2, left_behind, *case("kept", ddp), join=False) == [(True, False)] * 2
    assert ranks(2, left_behind, *case("limited", ddp, fails=0), join=False) == [(True, False)] * 2
    assert ranks(2, left_behind, *case("kept", fsdp2), join=False) == [(True, False)] * 2
