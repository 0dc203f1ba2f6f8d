"""The compiled reductions, against numpy and against the calls of torch that take their place."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from weakref import ref

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from gradcheck_cli.observe.audit.gradients import Gradients
from gradcheck_cli.observe.native import library
from gradcheck_cli.observe.native.library import NAME, load, read
from gradcheck_cli.observe.recorder import Recorder
from gradcheck_cli.observe.recorder_settings import RecorderSettings
from gradcheck_cli.observe.signals.activations import as_tensor, find_active
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
    sums = COMPILED.moments_of(tensor)
    assert sums is not None
    total, squares, largest, zeros = sums
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
    copies, together = [b"".join(COMPILED.copy(tensors) or ()) for tensors in (ones, others)], COMPILED.copy(ones)
    compared = zip(*map(np.frombuffer, COMPILED.compare(*copies, sizes)), strict=True)
    assert together is not None
    changed = COMPILED.changes(together, others)
    assert changed is not None
    changes = zip(*map(np.frombuffer, changed), strict=True)
    for row, change, one, other in zip(compared, changes, ones, others, strict=True):
        left, right = one.double(), other.double()
        assert row[0] == pytest.approx(float(left @ right), rel=1e-9, abs=1e-9)
        assert row[1] == pytest.approx(float(left @ left + right @ right) / 2, rel=1e-12)
        assert change[0] == pytest.approx(float((left - right).norm()), rel=1e-12)
        assert change[1] == float(other.abs().max() if other.numel() else 0)


def test_copies_of_others_are_refused() -> None:
    copies = COMPILED.copy([torch.ones(3)])
    assert copies is not None
    assert COMPILED.changes(copies, [torch.ones(4)]) is None
    assert COMPILED.changes(copies, [torch.ones(3), torch.ones(3)]) is None
    for lengths in ([2], [4], [4, -1]):
        with pytest.raises(ValueError, match="lengths"):
            COMPILED.compare(copies[0], copies[0], lengths)
    with pytest.raises(TypeError, match="list or tuple"):
        COMPILED.describe(3)  # type: ignore[arg-type]


def test_absent_tensors_are_left_out() -> None:
    one, other = torch.randn(20), torch.randn(3, 5)
    for reduce in (COMPILED.describe, COMPILED.norms):
        assert reduce([None, one, None, other]) == reduce([one, other])
    assert COMPILED.describe([]) == COMPILED.describe([None]) == b""
    many = [torch.full((2,), float(number)) for number in range(300)]
    norms = COMPILED.norms([tensor for one in many for tensor in (one, None)])
    assert norms is not None
    np.testing.assert_allclose(np.frombuffer(norms), np.sqrt(2) * np.arange(300))
    assert COMPILED.norms([*many, torch.ones(2).double()]) is None


def test_nothing_that_was_given_is_kept() -> None:
    tensors = [torch.randn(100_000), torch.randn(7), torch.randn(7, 3).t()]
    known = [sys.getrefcount(tensor) for tensor in tensors]
    for _ in range(50):
        COMPILED.describe(tensors[:2]), COMPILED.norms(tensors), COMPILED.sample(tensors[:2], 5)
        COMPILED.changes(COMPILED.copy(tensors[:2]) or [], tensors[:2])
        for reduce in (COMPILED.moments_of, COMPILED.is_direct):
            [*map(reduce, tensors)]
        for number in range(3):
            COMPILED.first([tensors[number]], 9), COMPILED.variation(tensors[number], 7)
            COMPILED.sharpness(tensors[number], bytes(8), 7)
    assert [sys.getrefcount(tensor) for tensor in tensors] == known


@given(sizes=st.lists(SIZES, min_size=1, max_size=5), most=st.integers(1, 2000))
def test_samples_lie_at_even_distances(sizes: list[int], most: int) -> None:
    tensors = [torch.randn(size) for size in sizes]
    found = COMPILED.sample(tensors, most)
    assert found is not None
    ends = np.cumsum(found[0])[:-1]
    for tensor, values in zip(tensors, np.split(np.frombuffer(found[1], dtype=np.float32), ends), strict=True):
        part = torch.tensor(values)
        assert len(part) <= most
        assert len(part) == len(tensor) if len(tensor) <= most else len(part) > 0
        step = -(-len(tensor) // max(1, len(part)))
        assert any(torch.equal(part, tensor[::distance]) for distance in {max(1, step - 1), max(1, step), step + 1})


def test_a_sample_of_a_matrix_is_not_one_of_its_columns() -> None:
    matrix = torch.arange(512).float().repeat(2048, 1)
    found = COMPILED.sample([matrix], MOST)
    assert found is not None
    assert len(np.unique(np.frombuffer(found[1], dtype=np.float32))) > 200


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
    assert torch.equal(as_tensor(find_active(values, dim)), values.sum(others) != 0)
    values.select(dim, 0)[0] = torch.nan
    assert as_tensor(find_active(values, dim))[0]


@pytest.mark.parametrize("shape", [(64, 10), (8, 3, 5), (2, 30_000), (5, 1)], ids=str)
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_variation_across_examples(shape: tuple[int, ...], offset: float) -> None:
    torch.manual_seed(0)
    rows = torch.randn(shape) + offset
    wide = rows.double().flatten(1).numpy()
    expected = np.sqrt(np.square(wide - wide.mean(0)).mean() / np.square(wide).mean())
    assert variation(rows) == pytest.approx(expected, rel=0.05 if rows.numel() > 1 << 14 else 1e-6)
    assert variation(torch.zeros(shape)) == 0.0


@given(rows=st.integers(1, 9), columns=st.integers(1, 40), seed=st.integers(0, 999))
def test_the_same_class_by_any_scores(rows: int, columns: int, seed: int) -> None:
    values = np.random.default_rng(seed).choice([-2.0, 0.0, 1.0, np.inf, -np.inf, np.nan], (rows, columns))
    tensor = torch.from_numpy(values.astype(np.float32))
    expected = int(tensor.argmax(1).bincount().max()) / rows
    assert COMPILED.same_class(tensor, rows) == expected


def test_the_most_frequent_class() -> None:
    assert same_class(torch.eye(4).repeat(2, 1)[:7], 4) == pytest.approx(2 / 7)


def test_only_what_lies_there_as_float32_is_read_in_place() -> None:
    plain, parameter = torch.randn(4, 5), nn.Parameter(torch.randn(3))
    negative = torch.imag(torch.randn(3, dtype=torch.complex64).conj())

    class Kind(Tensor):
        pass

    others = [plain.t(), plain.double(), plain.bfloat16(), negative, plain.to_sparse(), plain.as_subclass(Kind)]
    for tensor in (plain, parameter, torch.empty(0)):
        assert COMPILED.is_direct(tensor)
    for other in (*others, torch.empty(3, device="meta"), torch._efficientzerotensor(3)):
        assert not COMPILED.is_direct(other)
        assert COMPILED.describe([plain, other]) is None


@given(layout=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6)), max_size=4))
def test_only_what_lies_one_after_another_is_read_in_place(layout: list[tuple[int, int]]) -> None:
    shape, strides = [size for size, _ in layout], [stride for _, stride in layout]
    tensor = torch.randn(100).as_strided(shape, strides, 5)
    assert COMPILED.is_direct(tensor) == tensor.is_contiguous()
    if tensor.is_contiguous():
        assert COMPILED.first([tensor, None, tensor], 999) == tensor.numpy().tobytes() * 2


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
    assert not COMPILED.is_direct(given_back)


def test_what_can_be_made_to_lie_there_is_copied() -> None:
    plain = torch.randn(4, 5)
    for tensor in (plain.t(), plain.bfloat16(), plain.half(), plain[:, ::2]):
        wide = tensor.double()
        expected = (float(wide.sum()), float(wide.square().sum()), float(wide.abs().max()), 0.0)
        assert read(tensor) == pytest.approx(expected)
    for tensor in (plain.double(), plain.cfloat(), plain.to_sparse(), torch.empty(3, device="meta")):
        assert read(tensor) is None


def test_another_file_is_no_library(tmp_path: Path, uncompiled: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / f"another_machine{EXTENSION_SUFFIXES[0]}").write_text("of another machine")
    (tmp_path / "another_version.py").write_text("def describe(tensors): ...")
    for name in ("another_machine", "another_version", "there_is_none"):
        assert load(name) is None
    assert load(NAME) is not None
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


def test_a_torch_that_says_less_in_one_call_is_asked_for_each() -> None:
    places = ["any_length", "differences", "absent", "given_is_kept", "only_what_lies", "no_memory", "be_made_to_lie"]
    code = (
        "import sys, torch, pytest; del torch.Tensor.__dlpack_c_exchange_api__;"
        f"sys.exit(pytest.main([{__file__!r}, '-q', '-p', 'no:cacheprovider', '-k', {' or '.join(places)!r}]))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout
    assert ran.stdout.count(".") >= len(places)


def test_marks_and_versions_of_parameters() -> None:
    parameters = [nn.Parameter(torch.ones(3)) for _ in range(4)]
    references = [ref(parameter) for parameter in parameters]
    parameters[0].grad = first = torch.ones(3).mul_(2)
    parameters[1].grad = second = torch.ones(3).to_sparse()
    with torch.no_grad():
        parameters[2].mul_(2).mul_(2)
    del parameters[3]
    held = sys.getrefcount(first), sys.getrefcount(parameters[0])
    for _ in range(9):
        assert COMPILED.marks(references) == [(id(first), 1), (id(second), second._version), None, None]
        assert COMPILED.versions(references) == [0, 0, 2, None]
    assert (sys.getrefcount(first), sys.getrefcount(parameters[0])) == held


def test_gradients_have_the_same_marks_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
    optimizer = torch.optim.SGD(model.parameters())
    gradients = Gradients(optimizer, 0)
    model(torch.ones(2, 3)).sum().backward()
    gradients.choose()
    gradients.hold_weights()
    seen = [gradients.marks(), gradients.moved]
    optimizer.step()
    model[1].bias.grad = None
    seen += [gradients.marks(), gradients.moved]
    assert [bool(mark) for mark in gradients.marks()] == [True, False]
    monkeypatch.setattr(library, "COMPILED", None)
    assert [gradients.marks(), gradients.moved] == seen[2:]
    assert [seen[1], seen[3]] == [False, True]


def test_what_is_no_list_of_references_is_refused() -> None:
    assert library.COMPILED is not None
    for function in (library.COMPILED.marks, library.COMPILED.versions):
        for wrong in (None, (), [3]):
            with pytest.raises(TypeError):
                function(wrong)  # type: ignore[arg-type]
        with pytest.raises(AttributeError):
            function([int])  # type: ignore[list-item]  # which gives no parameter when it is called
