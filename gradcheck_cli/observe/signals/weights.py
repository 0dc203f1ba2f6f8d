"""Parameters as they are before the first step: their spread, and recurrent matrices."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from torch import Tensor, nn

from gradcheck_cli.observe.transfer import to_host
from gradcheck_cli.records import Floats, ParameterInfo
from gradcheck_cli.signals import RecurrentMatrix, WeightSignals

GATES: Mapping[type[nn.Module], tuple[str, ...]] = {
    nn.LSTM: ("input", "forget", "cell", "output"),
    nn.GRU: ("reset", "update", "new"),
    nn.LSTMCell: ("input", "forget", "cell", "output"),
    nn.GRUCell: ("reset", "update", "new"),
    nn.RNN: ("",),
    nn.RNNCell: ("",),
}
TRANSPOSED = ("ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d", "Conv1D")
"""Modules whose weights have the inputs in their first dimension; Conv1D is the linear layer of GPT-2."""
RECURRENT = re.compile(r"weight_hh(_l\d+(_reverse)?)?")
EXACT = 128
ITERATIONS = 64


def measure_weights(
    described: Sequence[tuple[ParameterInfo, Tensor]], modules: Mapping[str, nn.Module]
) -> WeightSignals:
    """Of every parameter; waits for the device, so it belongs before the first step."""
    matrices = [tensor if is_matrix(tensor) else None for _, tensor in described]
    spread = iter(to_host([std_of(tensor) for tensor in matrices if tensor is not None]))
    fans = [
        fans_of(tuple(tensor.shape), type(modules.get(info.module)).__name__)
        if matrix is not None
        else (np.nan, np.nan)
        for (info, tensor), matrix in zip(described, matrices, strict=True)
    ]
    table: Floats = np.array(fans, dtype=np.float64).reshape(len(fans), 2)
    std = np.array([np.nan if matrix is None else float(next(spread)) for matrix in matrices])
    recurrent = [matrix for name, module in modules.items() for matrix in measure_recurrent(name, module)]
    return WeightSignals(std, table[:, 0], table[:, 1], tuple(recurrent))


def std_of(tensor: Tensor) -> Tensor:
    """The spread of all elements, 0-d."""
    return whole(tensor.detach()).float().std(correction=0)


def whole(tensor: Tensor) -> Tensor:
    """All of a distributed tensor, for which its ranks must ask together; a plain one as it is."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def is_matrix(tensor: Tensor) -> bool:
    """Whether it has inputs and outputs: not a vector, not empty, not complex, not yet to be made."""
    if isinstance(tensor, nn.UninitializedParameter):
        return False
    return tensor.dim() > 1 and tensor.numel() > 0 and not tensor.is_complex()


def fans_of(shape: tuple[int, ...], kind: str) -> tuple[int, int]:
    """Fan-in and fan-out of the weight of a module of this class."""
    field = math.prod(shape[2:])
    fans = shape[1] * field, shape[0] * field
    return fans[::-1] if kind in TRANSPOSED else fans


def measure_recurrent(name: str, module: nn.Module) -> Iterator[RecurrentMatrix]:
    """The hidden-to-hidden matrices of a recurrent module, gate by gate."""
    gates = GATES.get(type(module))
    if gates is None:
        return
    for own, parameter in module.named_parameters(recurse=False):
        if RECURRENT.fullmatch(own):  # not the parts of a weight norm
            matrices = np.split(to_host([whole(parameter)])[0], len(gates))
            for gate, matrix in zip(gates, matrices, strict=True):
                path = f"{name}.{own}" if name else own
                yield RecurrentMatrix(path, gate, nonlinearity(module, gate), *spectrum(matrix))


def nonlinearity(module: nn.Module, gate: str) -> str:
    """What the matrix's product goes through: relu or tanh of a plain RNN, sigmoid of a gate."""
    if gate:
        return "tanh" if gate in ("cell", "new") else "sigmoid"
    return str(getattr(module, "nonlinearity", "tanh"))


def spectrum(matrix: Floats) -> tuple[float, float]:
    """Largest magnitude of an eigenvalue, and largest singular value; NaN for the first where it is not square.

    Larger matrices by power iteration from a fixed start: ||A^k v||^(1/k), and the same of A^T A. Golub and Van Loan,
    "Matrix Computations" (2013), section 7.3.
    """
    square = matrix.shape[0] == matrix.shape[1]
    if not np.isfinite(matrix).all():
        return (np.nan, np.nan)
    if max(matrix.shape) <= EXACT:
        radius = float(np.abs(np.linalg.eigvals(matrix)).max()) if square else np.nan
        return radius, float(np.linalg.norm(matrix, 2))
    return (growth([matrix]) if square else np.nan), growth([matrix, matrix.T]) ** 0.5


def growth(matrices: Sequence[Floats]) -> float:
    """By how much one round through the matrices lengthens a vector in the end."""
    vector = np.cos(np.arange(matrices[0].shape[1], dtype=np.float64) + 1.0)
    logs = 0.0
    for round_ in range(2 * ITERATIONS):
        before = np.linalg.norm(vector)
        for matrix in matrices:
            vector = matrix @ vector
        length = np.linalg.norm(vector)
        if not length > 0:
            return 0.0
        logs += float(np.log(length / before)) if round_ >= ITERATIONS else 0.0
        vector = vector / length
    return float(np.exp(logs / ITERATIONS))
