"""Every statistic against float64 numpy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from gradcheck_cli.observe.device_numerics import DeviceReducer
from gradcheck_cli.observe.host_numerics import HostReducer
from gradcheck_cli.observe.native import library
from gradcheck_cli.observe.numerics import Reducer, reducer_for
from gradcheck_cli.observe.squares import sum_of_squares
from gradcheck_cli.observe.transfer import to_host
from gradcheck_cli.records import Floats

REDUCERS = {
    "host": HostReducer,
    "host without a compiler": HostReducer,
    "device": lambda: DeviceReducer(torch.device("cpu")),
}
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@pytest.fixture(params=REDUCERS)
def reducer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Reducer:
    if request.param == "host without a compiler":
        monkeypatch.setattr(library, "COMPILED", None)
    return REDUCERS[request.param]()


def test_what_is_tested_here_is_compiled() -> None:
    """Where a compiler is there, as on every machine that runs the suite."""
    assert library.COMPILED is not None


def reference(tensor: Tensor) -> Floats:
    """The six statistics by numpy in float64, over values scaled so that no square overflows."""
    dense = tensor.to_dense() if tensor.layout is not torch.strided else tensor
    wide = dense.to(torch.complex128).abs() if dense.is_complex() else dense.to(torch.float64)
    values = wide.numpy().ravel()
    scale = np.abs(values).max() or 1.0
    scaled = values / scale
    norm, std = np.sqrt(np.sum(scaled**2)) * scale, scaled.std() * scale
    return np.array([norm, values.mean(), std, np.abs(values).max(), (values == 0).mean(), 0.0])


def measured(reducer: Reducer, tensors: Sequence[Tensor]) -> Floats:
    return to_host([reducer.measure(tensors)])[0]


def assert_right(reducer: Reducer, tensors: Sequence[Tensor]) -> None:
    expected = np.array([reference(tensor) for tensor in tensors])
    # The mean of values that cancel is compared with what float64 itself can tell of their sum.
    slack = np.zeros_like(expected)
    slack[:, 1] = 1e-15 * expected[:, 3]
    slack[:, 2] = 1e-9 * expected[:, 3] / np.sqrt([max(t.numel(), 1) for t in tensors])
    actual = measured(reducer, tensors)
    assert np.all(np.abs(actual - expected) <= 1e-6 * np.abs(expected) + slack), (actual, expected)
    norms = to_host([reducer.norms(tensors)])[0]
    np.testing.assert_allclose(norms, expected[:, 0], rtol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1.0, 1e4, 1e30])
def test_values_of_any_size(reducer: Reducer, dtype: torch.dtype, scale: float) -> None:
    shapes = [(1,), (3,), (127,), (8, 1024), (300, 400), (70_001,)]
    limit = min(torch.finfo(dtype).max, 1e38)
    assert_right(reducer, [(torch.randn(shape) * scale).clamp(-limit, limit).to(dtype) for shape in shapes])


@pytest.mark.parametrize("numel", [1, 2, 1023, 1 << 17, (1 << 17) + 1, (1 << 19) + 7, 5_000_000])
def test_sizes_around_every_boundary(reducer: Reducer, numel: int) -> None:
    assert_right(reducer, [torch.randn(numel) + 0.1])


def test_fifty_million_elements() -> None:
    """Where torch's own float32 norm is wrong in the third digit."""
    tensor = torch.full((50_000_000,), 0.1)
    tensor[::2] = -0.3
    expected = np.sqrt(25e6 * (float(torch.tensor(0.1)) ** 2 + float(torch.tensor(0.3)) ** 2))
    norm, mean, std, largest, zero_fraction, nonfinite = measured(HostReducer(), [tensor])[0]
    assert norm == pytest.approx(expected, rel=1e-9)
    assert mean == pytest.approx((0.1 - 0.3) / 2, rel=1e-6)
    assert std == pytest.approx(0.2, rel=1e-6)
    assert (largest, zero_fraction, nonfinite) == (float(torch.tensor(0.3)), 0.0, 0.0)


@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(max_dims=2, max_side=40),
        elements=st.floats(-(2.0**100), 2.0**100, width=32) | st.just(0.0) | st.floats(-1.0, 1.0, width=32),
    )
)
def test_any_values(values: np.ndarray) -> None:  # type: ignore[type-arg]
    for name, make in REDUCERS.items():
        with pytest.MonkeyPatch.context() as patch:
            if name == "host without a compiler":
                patch.setattr(library, "COMPILED", None)
            assert_right(make(), [torch.from_numpy(values)])


def test_constants_have_no_spread(reducer: Reducer) -> None:
    tensors = [torch.full((size,), 0.1) for size in (1, 2, 1000, 40_000)]
    assert np.all(measured(reducer, tensors)[:, 2] <= 1e-12)


def test_spread_far_below_the_mean(reducer: Reducer) -> None:
    assert_right(reducer, [torch.randn(40_000) * 0.1 + 1e4, 1 + torch.randn(1000) * 1e-6])


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(64, 64).t(),
        torch.randn(3, 4, 5, 6).to(memory_format=torch.channels_last),
        torch.randn(100, 300)[:, ::3],
        torch.randn(1).expand(50),
        torch.randn(500, 100).t(),
        torch.imag(torch.randn(300, dtype=torch.complex64).conj()),  # torch notes the sign beside the numbers
        torch.randn(9000)[1::2],
    ],
)
def test_any_layout(reducer: Reducer, tensor: Tensor) -> None:
    assert_right(reducer, [tensor])


@pytest.mark.parametrize("scale", [1.0, 1e25, 1e-25])
def test_complex_tensors_by_magnitude(reducer: Reducer, scale: float) -> None:
    assert_right(reducer, [torch.randn(50, dtype=torch.complex64) * scale, torch.randn(40_000, dtype=torch.complex64)])


def test_sparse_tensors_with_their_implicit_zeros(reducer: Reducer) -> None:
    rows = torch.tensor([[1, 3, 3]])
    tensor = torch.sparse_coo_tensor(rows, torch.randn(3, 40), (1000, 40), check_invariants=True)
    assert_right(reducer, [tensor, torch.randn(10)])


def test_float64_beyond_the_range_of_its_squares(reducer: Reducer) -> None:
    if isinstance(reducer, HostReducer):
        assert_right(
            reducer, [torch.tensor([3e200, 4e200], dtype=torch.float64), torch.tensor([3e-200, 4e-200]).double()]
        )


def test_empty_and_all_zero_tensors(reducer: Reducer) -> None:
    actual = measured(reducer, [torch.empty(0), torch.zeros(7)])
    np.testing.assert_array_equal(actual, [[0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0]])


@pytest.mark.parametrize(("bad", "norm"), [(float("inf"), np.inf), (-float("inf"), np.inf), (float("nan"), np.nan)])
@pytest.mark.parametrize("numel", [10, 40_000])
def test_nonfinite_elements_are_counted(reducer: Reducer, bad: float, norm: float, numel: int) -> None:
    tensor = torch.ones(numel)
    tensor[3] = tensor[5] = bad
    row = measured(reducer, [torch.ones(4), tensor])[1]
    np.testing.assert_array_equal(row[[0, 3, 5]], [norm, norm, 2])


def test_finite_values_never_give_an_infinite_norm(reducer: Reducer) -> None:
    row = measured(reducer, [torch.full((100,), 1e38)])[0]
    assert row[0] == pytest.approx(1e39)
    assert row[5] == 0


def test_steps_do_not_mix(reducer: Reducer) -> None:
    """Each step must get its own numbers, also when shapes change in between."""
    steps = [[torch.randn(50) * (i + 1), torch.randn(7, 3)] for i in range(40)]
    steps.insert(20, [torch.randn(5)])
    pending = [reducer.measure(tensors) for tensors in steps]
    for tensors, result in zip(steps, to_host(pending), strict=True):
        np.testing.assert_allclose(result[:, 0], [float(t.double().norm()) for t in tensors], rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.complex64], ids=str)
def test_changes_of_parameters(reducer: Reducer, dtype: torch.dtype) -> None:
    before = [torch.randn(shape, dtype=dtype) for shape in [(40, 30), (7,), (0,)]]
    now = [one + torch.randn_like(one) for one in before]
    moved = [float((old - new).to(torch.complex128).norm()) for old, new in zip(before, now, strict=True)]
    changes, largest = to_host(reducer.changes(reducer.hold(before), now))
    np.testing.assert_allclose(changes, moved, rtol=1e-6)
    np.testing.assert_allclose(largest, [float(new.abs().max()) if new.numel() else 0.0 for new in now], rtol=1e-6)


def test_changes_of_a_parameter_that_lies_otherwise_after_the_update() -> None:
    reducer = HostReducer()
    before, now = torch.randn(4, 6), torch.randn(6, 4).t()
    changes, largest = reducer.changes(reducer.hold([before]), [now])
    assert to_host([changes])[0][0] == pytest.approx(float((before - now).norm()))
    assert largest[0] == float(now.abs().max())


def test_parameters_that_move_are_found_again() -> None:
    reducer, parameters = HostReducer(), [torch.nn.Parameter(torch.ones(50)), torch.nn.Parameter(torch.ones(5))]
    assert to_host([reducer.norms(parameters)])[0][0] == pytest.approx(50**0.5)
    for data in (torch.full((50,), 2.0), torch.full((3,), 2.0), torch.full((4,), 2.0).double(), torch.eye(4)[:, ::2]):
        parameters[0].data = data
        assert to_host([reducer.norms(parameters)])[0][0] == pytest.approx(float(data.norm()))
    parameters[0].data = parameters[0].data[:1]
    assert to_host([reducer.norms(parameters)])[0][0] == pytest.approx(1.0)


def test_later_changes_of_a_gradient_do_not_reach_back(reducer: Reducer) -> None:
    gradient = torch.ones(9)
    pending = reducer.measure([gradient])
    gradient.zero_()
    assert to_host([pending])[0][0, 0] == 3.0


def test_sum_of_squares() -> None:
    large = torch.randn(1_200_001)
    half = torch.randn(50_000).bfloat16()
    constant = torch.full((3_000_000,), 0.1)
    for tensor in (
        constant,
        large,
        large * 1e25,
        large * 1e-25,
        half,
        torch.randn(3, 4) * 1e20,
        torch.randn(5).cfloat(),
    ):
        expected = float(tensor.to(torch.complex128).abs().square().sum())
        assert float(sum_of_squares(tensor)) == pytest.approx(expected, rel=5e-7)


def test_an_accelerator_is_never_waited_for() -> None:
    """Fake cuda tensors raise on whatever needs their values on the host."""
    with FakeTensorMode():
        gradients = [torch.empty(shape, device="cuda") for shape in [(1000, 3000), (768,), (5, 5)]]
        with pytest.raises(DataDependentOutputException):
            gradients[0].sum().item()
        reducer = reducer_for(gradients[0].device)
        statistics, norms = reducer.measure(gradients), reducer.norms(gradients)
        assert isinstance(statistics, Tensor)
        assert isinstance(norms, Tensor)
        assert statistics.device.type == norms.device.type == sum_of_squares(gradients[0]).device.type == "cuda"
        assert (statistics.shape, norms.shape) == ((3, 6), (3,))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_agrees_with_the_host() -> None:
    tensors = [torch.randn(1_000_000), torch.randn(7), torch.full((100,), 1e30)]
    on_device = measured(reducer_for(torch.device("cuda")), [tensor.cuda() for tensor in tensors])
    np.testing.assert_allclose(on_device, measured(HostReducer(), tensors), rtol=1e-9)
