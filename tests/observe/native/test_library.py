"""The compiled reductions, against numpy and against the calls of torch that take their place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from gradcheck_cli.observe.native import library
from gradcheck_cli.observe.native.library import are_direct, as_direct, is_direct, load, places_of, read
from gradcheck_cli.observe.recorder import Recorder
from gradcheck_cli.observe.recorder_settings import RecorderSettings
from gradcheck_cli.observe.signals.activations import find_active
from gradcheck_cli.observe.signals.attention import measure_products
from gradcheck_cli.observe.signals.noise import MOST, GradientPairs
from gradcheck_cli.observe.signals.outputs import same_class, variation
from gradcheck_cli.records import Recording, RunInfo

assert library.COMPILED is not None
COMPILED = library.COMPILED
SIZES = st.integers(0, 70) | st.sampled_from([1023, 1024, 1025, 5000])


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(library, "COMPILED", None)
    return


@given(size=SIZES, seed=st.integers(0, 99), offset=st.integers(0, 3))
def test_moments_of_any_length_from_any_address(size: int, seed: int, offset: int) -> None:
    values = np.random.default_rng(seed).normal(size=size + offset).astype(np.float32)
    values[::3] *= 0
    tensor, wide = torch.from_numpy(values)[offset:], values[offset:].astype(np.float64)
    total, squares, largest, zeros = COMPILED.moments_of(tensor)
    assert total == pytest.approx(wide.sum(), rel=1e-12, abs=1e-12)
    assert squares == pytest.approx(np.square(wide).sum(), rel=1e-12)
    assert (largest, zeros) == (np.abs(wide).max(initial=0), (wide == 0).sum())


def test_zeros_have_a_sign_and_numbers_below_the_normal_ones_are_none() -> None:
    tensor = torch.tensor([0.0, -0.0, 1e-45, -1e-45, 5.0])
    assert read(tensor) == (5.0, pytest.approx(25.0), 5.0, 2.0)


@pytest.mark.parametrize("place", [0, 7, 16, 19])
@pytest.mark.parametrize("bad", [float("inf"), -float("inf"), float("nan")])
def test_what_is_not_finite_shows_in_the_largest(place: int, bad: float) -> None:
    tensor = torch.ones(20)
    tensor[place] = bad
    sums = read(tensor)
    assert sums is not None
    assert np.array_equal(sums[2], abs(bad), equal_nan=True)


@given(sizes=st.lists(SIZES, min_size=1, max_size=5), seed=st.integers(0, 99))
def test_differences_and_products(sizes: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    ones, others = [torch.randn(size) for size in sizes], [torch.randn(size) for size in sizes]
    table = COMPILED.compare(places_of(ones), places_of(others))
    for row, one, other in zip(table, ones, others, strict=True):
        left, right = one.double(), other.double()
        assert row[0] == pytest.approx(float((left - right).norm()), rel=1e-12)
        assert row[1] == pytest.approx(float(left @ right), rel=1e-9, abs=1e-9)


@given(sizes=st.lists(SIZES, min_size=1, max_size=5), most=st.integers(1, 2000))
def test_samples_lie_at_even_distances(sizes: list[int], most: int) -> None:
    tensors = [torch.randn(size) for size in sizes]
    lengths, values = COMPILED.sample(tensors, most)
    for tensor, part in zip(tensors, torch.split(values, lengths), strict=True):
        assert len(part) <= most
        assert len(part) == len(tensor) if len(tensor) <= most else len(part) > 0
        step = -(-len(tensor) // max(1, len(part)))
        assert any(torch.equal(part, tensor[::distance]) for distance in {max(1, step - 1), max(1, step), step + 1})


def test_a_sample_of_a_matrix_is_not_one_of_its_columns() -> None:
    matrix = torch.arange(512).float().repeat(2048, 1)
    assert len(COMPILED.sample([matrix], MOST)[1].unique()) > 200


@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize("shape", [(2, 4, 12, 8), (3, 70, 16), (1, 1, 1, 4)], ids=str)
def test_attention(shape: tuple[int, ...], is_causal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    args = (4 * torch.randn(shape), torch.randn(shape), torch.randn(shape))
    own = measure_products(args, {"is_causal": is_causal})
    monkeypatch.setattr(library, "COMPILED", None)
    others = measure_products(args, {"is_causal": is_causal})
    assert own is not None
    assert others is not None
    np.testing.assert_allclose(own, [float(other) for other in others if other is not None], rtol=1e-4)


@pytest.mark.parametrize(("examples", "keys"), [(0, 5), (2, 0)])
def test_attention_to_nothing(examples: int, keys: int) -> None:
    query, key = torch.randn(examples, 3, 4), torch.randn(examples, keys, 4)
    measured = measure_products((query, key, key), {})
    assert measured is not None
    assert np.isnan(measured).all()  # type: ignore[arg-type]


@pytest.mark.parametrize(("shape", "dim"), [((64, 10), 1), ((8, 5, 4, 4), 1), ((3, 7, 6), 2), ((2, 1), 1)], ids=str)
def test_active_units(shape: tuple[int, ...], dim: int) -> None:
    torch.manual_seed(0)
    values = torch.relu(torch.randn(shape))
    values.select(dim, 0).zero_()
    others = [other for other in range(values.dim()) if other != dim]
    assert torch.equal(find_active(values, dim), values.sum(others) != 0)
    values.select(dim, 0)[0] = torch.nan
    assert find_active(values, dim)[0]


@pytest.mark.parametrize("shape", [(64, 10), (8, 3, 5), (2, 30_000), (5, 1)], ids=str)
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_variation_across_examples(shape: tuple[int, ...], offset: float) -> None:
    torch.manual_seed(0)
    rows = torch.randn(shape) + offset
    wide = rows.double().flatten(1).numpy()
    expected = np.sqrt(np.square(wide - wide.mean(0)).mean() / np.square(wide).mean())
    assert variation(rows) == pytest.approx(expected, rel=0.05 if rows.numel() > 1 << 14 else 1e-6)
    assert variation(torch.zeros(shape)) == 0.0


def test_the_most_frequent_class() -> None:
    assert same_class(torch.eye(4).repeat(2, 1)[:7], 4) == pytest.approx(2 / 7)


def test_only_what_lies_there_as_float32_is_read_in_place() -> None:
    plain, parameter = torch.randn(4, 5), nn.Parameter(torch.randn(3))
    negative = torch.imag(torch.randn(3, dtype=torch.complex64).conj())

    class Kind(Tensor):
        pass

    others = [plain.t(), plain.double(), plain.bfloat16(), negative, plain.to_sparse(), plain.as_subclass(Kind)]
    assert are_direct([plain, parameter, torch.empty(0)])
    for other in (*others, torch.empty(3, device="meta"), torch._efficientzerotensor(3)):
        assert not is_direct(other)
        assert not are_direct([plain, other])


def test_what_has_no_memory_of_its_own_is_left_alone() -> None:
    seen = []

    def look(tensor: Tensor) -> Tensor:
        seen.append(read(tensor))
        return tensor.sum()

    torch.vmap(look)(torch.randn(3, 4))
    torch.func.grad(look)(torch.randn(4))
    given_back = torch.randn(4)
    given_back.untyped_storage().resize_(0)
    assert seen == [None, None]
    assert not is_direct(given_back)


def test_what_can_be_made_to_lie_there_is_copied() -> None:
    plain = torch.randn(4, 5)
    for tensor in (plain.t(), plain.bfloat16(), plain.half(), plain[:, ::2]):
        straight = as_direct(tensor)
        assert straight is not None
        assert torch.equal(straight, tensor.float())
    for tensor in (plain.double(), plain.cfloat(), plain.to_sparse(), torch.empty(3, device="meta")):
        assert as_direct(tensor) is None


def test_another_file_is_no_library(tmp_path: Path, uncompiled: None) -> None:
    (tmp_path / "_reductions.so").write_text("of another machine")
    assert load(tmp_path / "_reductions.so") is None
    assert load(tmp_path / "absent.so") is None
    assert read(torch.ones(3)) is None


def record() -> Recording:
    """Everything of some steps of a model with convolutions, attention and dead units."""
    torch.manual_seed(0)
    stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(2))
    layer = nn.TransformerEncoderLayer(36, 4, 50, batch_first=True, dropout=0.1)
    model = nn.Sequential(stem, layer, nn.Flatten(), nn.Linear(288, 40), nn.ReLU(), nn.Linear(40, 5))
    optimizer = torch.optim.AdamW(model.parameters())
    with Recorder(model, optimizer, RecorderSettings(probe_every=2)) as recorder:
        for _ in range(6):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(torch.randn(16, 1, 6, 6)), torch.randint(5, (16,))).backward()
            optimizer.step()
    return recorder.recording(RunInfo("train.py:build", "cpu", "fp32", 0))


def test_a_recording_is_the_same_with_and_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    own = record()
    monkeypatch.setattr(library, "COMPILED", None)
    other = record()
    for part in ("series", "statistics", "probes", "signals"):
        for name, value in vars(getattr(own, part)).items():
            expected = getattr(getattr(other, part), name)
            if name in ("seconds", "overhead") or name.startswith("gradient_"):  # of another sample
                continue
            for field, array in vars(value).items() if hasattr(value, "__dict__") else [(name, value)]:
                wanted = getattr(expected, field) if hasattr(value, "__dict__") else expected
                if isinstance(array, np.ndarray):
                    np.testing.assert_allclose(array, wanted, rtol=1e-4, atol=1e-6, err_msg=f"{part}.{name}.{field}")
                else:
                    assert array == wanted


def test_pairs_of_gradients_know_the_absent_ones() -> None:
    pairs, gradients = GradientPairs(), [torch.randn(30), None, torch.randn(9000)]
    pairs.hold(gradients)
    found = pairs.compare([gradients[0], None, -gradients[2]])
    square = float(gradients[0].square().sum())
    assert found["dot"][0] == pytest.approx(square)
    assert found["square"][0] == pytest.approx(square)
    assert np.isnan(found["dot"][1])
    assert found["dot"][2] == pytest.approx(-found["square"][2])
