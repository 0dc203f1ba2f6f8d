"""Which batches a rank takes: other ones than every other rank, in an order that all agree on."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, DistributedSampler, IterableDataset, SequentialSampler

from gradcheck_cli.config import Settings
from gradcheck_cli.drive.ranks.group import Group, Place
from gradcheck_cli.drive.ranks.shares import share
from gradcheck_cli.errors import GradcheckError, TargetError
from gradcheck_cli.pipeline.preparation import ignore
from gradcheck_cli.pipeline.profiling import record
from tests.distributed.conftest import Pool
from tests.distributed.test_strategies import with_patience

SAMPLES, BATCH = 42, 4
Epoch = list[list[float]]


class Numbers(Dataset[Tensor]):
    """Sample i is i; loading one draws random numbers, more of them on a higher rank."""

    def __init__(self, draws: int = 0) -> None:
        self._draws = draws

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> Tensor:
        torch.rand(self._draws)
        return torch.tensor(float(index))


class Stream(IterableDataset[Tensor]):
    def __iter__(self) -> Iterator[Tensor]:
        return (torch.tensor(float(index)) for index in range(SAMPLES))


def shuffling(rank: int, **options: Any) -> DataLoader[Tensor]:
    return DataLoader(Numbers(rank), BATCH, shuffle=True, **options)


def taken(make: Callable[[int], Iterable[Any]], size: int, epochs: int = 3) -> list[list[Epoch]]:
    """By rank and epoch, what the ranks of a run train on, while each draws random numbers of its own."""
    ranks = []
    for rank in range(size):
        torch.manual_seed(0)
        np.random.seed(0)
        random.seed(0)
        shared, _ = share(make(rank), Group(), Place(rank, size, rank))
        torch.manual_seed(rank)
        ranks.append([[noisily(batch, rank) for batch in shared] for _ in range(epochs)])
    return ranks


def noisily(batch: Tensor, rank: int) -> list[float]:
    torch.rand(3 * rank)
    np.random.rand(rank)
    random.random()
    return batch.reshape(-1).tolist()


def samples(epoch: Epoch) -> list[float]:
    return [sample for batch in epoch for sample in batch]


LOADERS: dict[str, Callable[[int], Iterable[Any]]] = {
    "shuffled": shuffling,
    "workers": lambda rank: shuffling(rank, num_workers=2, persistent_workers=True),
    "own generator": lambda rank: shuffling(rank, generator=torch.Generator().manual_seed(3)),
    "batch sampler": lambda rank: DataLoader(
        Numbers(rank), batch_sampler=BatchSampler(SequentialSampler(Numbers()), BATCH, drop_last=False)
    ),
    "iterable": lambda rank: DataLoader(Stream(), BATCH),
    "no batching": lambda rank: DataLoader(list(torch.arange(float(SAMPLES)).split(BATCH)), batch_size=None),
    "list": lambda rank: list(torch.arange(float(SAMPLES)).split(BATCH)),
}


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("kind", LOADERS)
def test_shares_are_disjoint_and_complete_up_to_the_remainder(kind: str, size: int) -> None:
    if kind == "workers" and size == 3:
        return
    ranks = taken(LOADERS[kind], size)
    for epoch in zip(*ranks, strict=True):
        together = [sample for part in epoch for sample in samples(part)]
        whole = (SAMPLES + BATCH - 1) // BATCH // size
        assert {len(part) for part in epoch} == {whole}
        assert len(set(together)) == len(together) >= whole * size * BATCH - BATCH + SAMPLES % BATCH
    same = all(first == second for first, second, _ in ranks)
    assert same is (kind not in ("shuffled", "workers", "own generator"))


def test_the_order_is_that_of_one_process() -> None:
    """As long as that one draws no other random numbers."""
    torch.manual_seed(0)
    loader = shuffling(0)
    expected = [[batch.tolist() for batch in loader][:10] for _ in range(3)]
    both = taken(shuffling, 2)
    found = [[batch for pair in zip(*epoch, strict=True) for batch in pair] for epoch in zip(*both, strict=True)]
    assert found == expected


def distributed(rank: int) -> DataLoader[Tensor]:
    return DataLoader(Numbers(), BATCH, sampler=DistributedSampler(Numbers(), 2, rank))


def of_accelerate(rank: int) -> Any:
    loading = pytest.importorskip("accelerate.data_loader")
    return loading.prepare_data_loader(
        DataLoader(Numbers(), BATCH, shuffle=True),
        torch.device("cpu"),
        num_processes=2,
        process_index=rank,
        put_on_device=False,
        data_seed=1,
        use_seedable_sampler=True,
    )


def of_transformers(rank: int) -> Any:
    utilities = pytest.importorskip("transformers.trainer_pt_utils")
    return DataLoader(utilities.IterableDatasetShard(Stream(), BATCH, num_processes=2, process_index=rank), BATCH)


@pytest.mark.parametrize("make", [distributed, of_accelerate, of_transformers])
def test_a_loader_that_gives_each_rank_its_own_samples_is_used_as_it_is(make: Callable[[int], Any]) -> None:
    first, second = taken(make, 2, epochs=2)
    for one, other in zip(first, second, strict=True):
        assert {*samples(one), *samples(other)} == set(range(SAMPLES))
        assert len(one) == len(other)
    assert (first[0] != first[1]) is (make is not of_transformers)  # set_epoch is called
    assert share(make(0), Group(), Place(0, 2, 0))[1] == ""


def test_what_is_said_of_it() -> None:
    batches = [torch.zeros(1)] * 8
    assert share(batches, Group(), Place(0, 3))[1].startswith("each rank takes every 3rd batch")


@pytest.mark.parametrize("batches", [[1], DataLoader(Numbers(), SAMPLES), iter([1])])
def test_fewer_batches_than_ranks_are_an_error(batches: Any) -> None:
    shared, _ = share(batches, Group(), Place(1, 2, 1))
    with pytest.raises(TargetError, match="has 1 batch for 2 ranks"):
        list(shared)


def test_none_at_all_are_left_to_who_asks_for_the_first() -> None:
    assert list(share([], Group(), Place(1, 2, 1))[0]) == []


def ended(group: Group, cases: list[dict[str, int]]) -> list[tuple[int, str]]:
    """How many steps there were, and why they ended."""
    found = []
    for given in cases:
        settings = Settings(steps=9, device="cpu", strategy="ddp", set=given)
        run = record("tests.distributed.targets:limited", settings, ignore, group).recording
        found.append((run.steps, run.run.ended))
    return found


def test_all_ranks_end_with_the_first_that_has_no_data(ranks: Pool) -> None:
    cases = [{"batches": 9, "of_rank_1": 9}, {"batches": 9, "of_rank_1": 5}, {"batches": 4, "of_rank_1": 9}]
    expected = [(4, "data-exhausted"), (2, "data-exhausted"), (2, "data-exhausted")]
    assert ranks(2, ended, cases) == [expected, expected]


def failure(group: Group, given: dict[str, int]) -> str:
    with pytest.raises(GradcheckError) as caught:
        ended(group, [given])
    return caught.value.message


def test_a_loader_that_fails_on_one_rank_ends_the_others(ranks: Pool) -> None:
    waited, failed = ranks(2, with_patience, 1.0, failure, {"fails": 4}, join=False)
    assert failed == "the dataloader failed in epoch 0, at batch 2: ValueError: a broken file"
    assert waited.startswith("another rank ")
    few = ranks(2, failure, {"batches": 1, "of_rank_1": 1})
    assert few == ["the dataloader has 1 batch for 2 ranks"] * 2
