"""Counts of what is in a tensor, against numpy."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gradcheck_cli.observe.nan.states import is_finite, state_of
from gradcheck_cli.tape import TensorState

NAN, INF = float("nan"), float("inf")
NUMBERS = [NAN, INF, -INF, 0.0, -0.0, 1.0, -1.0, 2.5, -3.0, 448.0]
REAL = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2]
WHOLE = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64]
SHAPES = [(), (0,), (1,), (7,), (3, 4), (2, 0, 3), (2, 3, 2)]


def expected(parts: np.ndarray, shape: tuple[int, ...], dtype: str) -> TensorState:
    """By numpy, of an array with the parts of each element in a last dimension."""
    finite = parts[np.isfinite(parts)]
    bad = ~np.isfinite(parts).all(-1)
    rows = np.flatnonzero(bad.reshape(shape[0], -1).any(1)) if shape and bad.size else []
    return TensorState(
        shape,
        dtype,
        math.prod(shape),
        nan=int(np.isnan(parts).any(-1).sum()),
        positive_inf=int((parts == INF).any(-1).sum()),
        negative_inf=int((parts == -INF).any(-1).sum()),
        zeros=int((parts == 0).any(-1).sum()),
        negatives=int((parts < 0).any(-1).sum()),
        ones=int((np.abs(parts) == 1).any(-1).sum()),
        low=float(finite.min()) if finite.size else NAN,
        high=float(finite.max()) if finite.size else NAN,
        bad_rows=tuple(int(row) for row in rows)[:64],
    )


def assert_same(found: TensorState, wanted: TensorState) -> None:
    found = replace(found, low=found.low + 0.0, high=found.high + 0.0)  # -0 is 0
    assert repr(found) == repr(wanted), "repr: NaN equals itself there"


@st.composite
def arrays(draw: st.DrawFn, numbers: list[float]) -> Any:
    shape = draw(st.sampled_from(SHAPES))
    flat = draw(st.lists(st.sampled_from(numbers), min_size=math.prod(shape), max_size=math.prod(shape)))
    return np.array(flat, dtype=float).reshape(shape) + 0.0  # no -0, which prints differently


@given(arrays(NUMBERS), st.sampled_from(REAL))
@settings(max_examples=150, deadline=None)
def test_real(array: np.ndarray, dtype: torch.dtype) -> None:
    tensor = torch.tensor(array).to(dtype)
    values = tensor.double().numpy()  # what is left of Inf in a dtype without
    assert_same(state_of(tensor), expected(values[..., None], array.shape, str(dtype)[6:]))
    assert is_finite(tensor) == bool(np.isfinite(values).all())


@given(arrays([0, 1, 2, 100]), st.sampled_from([*WHOLE, torch.bool]))
@settings(max_examples=60, deadline=None)
def test_whole(array: np.ndarray, dtype: torch.dtype) -> None:
    tensor = torch.tensor(array).to(dtype)
    values = tensor.double().numpy()
    assert_same(state_of(tensor), expected(values[..., None], array.shape, str(dtype)[6:]))
    assert is_finite(tensor)


@given(arrays(NUMBERS), arrays(NUMBERS), st.sampled_from([torch.complex64, torch.complex128]), st.booleans())
@settings(max_examples=80, deadline=None)
def test_complex(real: np.ndarray, imaginary: np.ndarray, dtype: torch.dtype, conjugate: bool) -> None:
    """An element counts when one of its parts does."""
    if real.shape != imaginary.shape:
        imaginary = real[::-1] if real.ndim else real
    tensor = torch.complex(torch.tensor(real), torch.tensor(imaginary.copy())).to(dtype)
    tensor = tensor.conj() if conjugate else tensor
    parts = np.stack([real, -imaginary if conjugate else imaginary], -1) + 0.0
    assert_same(state_of(tensor), expected(parts, real.shape, str(dtype)[6:]))
    assert is_finite(tensor) == bool(np.isfinite(parts).all())


@given(arrays(NUMBERS))
@settings(max_examples=40, deadline=None)
def test_views(array: np.ndarray) -> None:
    tensor = torch.tensor(array)
    for view, same in (
        (tensor.mT if tensor.dim() > 1 else tensor, array.swapaxes(-1, -2) if array.ndim > 1 else array),
        (tensor.expand(3, *tensor.shape), np.broadcast_to(array, (3, *array.shape))),
    ):
        assert_same(state_of(view), expected(same[..., None], same.shape, "float64"))


def sparse(values: Tensor, rows: list[int], size: tuple[int, ...]) -> Tensor:
    return torch.sparse_coo_tensor(torch.tensor([rows]), values, size, check_invariants=True)


def test_sparse() -> None:
    """What is stored is counted; rows are those of the tensor."""
    state = state_of(sparse(torch.tensor([[NAN, 1.0], [0.0, -2.0], [INF, 3.0]]), [5, 2, 5], (8, 2)))
    assert (state.shape, state.numel, state.nan, state.inf) == ((8, 2), 16, 1, 1)
    assert (state.zeros, state.ones, state.negatives, state.low, state.high) == (1, 1, 1, -2, 3)
    assert state.bad_rows == (5,)
    assert state_of(sparse(torch.empty(0, 2), [], (8, 2))).finite
    assert not is_finite(sparse(torch.tensor([NAN]), [1], (3,)))
    assert state_of(sparse(torch.tensor([1.0, NAN]), [0, 2], (3,))).bad_rows == (2,)


@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_compressed_sparse() -> None:
    state = state_of(torch.tensor([[1.0, 0.0], [NAN, 0.0]]).to_sparse_csr())
    assert (state.nan, state.ones, state.bad_rows) == (1, 1, ())


def test_many_rows_are_cut() -> None:
    assert state_of(torch.full((100, 2), NAN)).bad_rows == tuple(range(64))


def test_tensors_without_memory() -> None:
    assert state_of(torch.empty(3, device="meta")).finite
    assert is_finite(torch.empty(3, device="meta"))
    zero = torch._efficientzerotensor((3,))
    assert state_of(zero).finite
    assert state_of(zero).numel == 3


@pytest.mark.parametrize("value", [3e38, -3e38])
def test_finite_numbers_whose_sum_overflows(value: float) -> None:
    assert is_finite(torch.full((10,), value))


def test_nothing_is_written_and_no_graph_is_made() -> None:
    parameter = torch.nn.Parameter(torch.tensor([NAN, 1.0]))
    assert state_of(parameter).nan == 1
    assert parameter._version == 0
