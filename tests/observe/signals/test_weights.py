"""Spectra of recurrent matrices, against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from gradcheck_cli.observe.recorder import Recorder
from gradcheck_cli.observe.signals.weights import spectrum
from gradcheck_cli.records import RunInfo
from gradcheck_cli.signals import RecurrentMatrix

INPUTS, HIDDEN = 5, 8


def matrices_of(module: nn.Module) -> tuple[RecurrentMatrix, ...]:
    recorder = Recorder(nn.Sequential(module), torch.optim.SGD(module.parameters(), lr=0.1))
    signals = recorder.recording(RunInfo("", "cpu", "fp32", 0)).signals
    assert signals is not None
    return signals.weights.recurrent


def test_spectra_of_an_lstm_go_gate_by_gate() -> None:
    lstm = nn.LSTM(INPUTS, HIDDEN, bidirectional=True)
    found = matrices_of(lstm)
    assert [matrix.gate for matrix in found] == ["input", "forget", "cell", "output"] * 2
    assert {matrix.parameter for matrix in found} == {"0.weight_hh_l0", "0.weight_hh_l0_reverse"}
    assert [matrix.nonlinearity for matrix in found[:4]] == ["sigmoid", "sigmoid", "tanh", "sigmoid"]
    weights = lstm.weight_hh_l0.detach().double().numpy()
    for number in range(4):
        own = weights[number * HIDDEN : (number + 1) * HIDDEN]
        assert found[number].radius == pytest.approx(np.abs(np.linalg.eigvals(own)).max())
        assert found[number].norm == pytest.approx(np.linalg.norm(own, 2))


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_spectra_of_a_plain_network_say_its_nonlinearity(nonlinearity: str) -> None:
    (found,) = matrices_of(nn.RNN(INPUTS, HIDDEN, nonlinearity=nonlinearity))
    assert (found.gate, found.nonlinearity) == ("", nonlinearity)


def test_spectra_with_a_projection_have_no_radius() -> None:
    lstm = nn.LSTM(INPUTS, HIDDEN, proj_size=3)
    found = matrices_of(lstm)
    assert len(found) == 4
    assert np.isnan([matrix.radius for matrix in found]).all()
    own = lstm.weight_hh_l0.detach().double().numpy()[:HIDDEN]
    assert found[0].norm == pytest.approx(np.linalg.norm(own, 2))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_large_matrices_by_power_iteration(scale: float, seed: int) -> None:
    """Within 3 %: the largest eigenvalues of a random matrix lie close together, and come in conjugate pairs."""
    generator = np.random.default_rng(seed)
    matrix = scale * generator.normal(size=(256, 256)) / 16
    radius, norm = spectrum(matrix)
    assert radius == pytest.approx(np.abs(np.linalg.eigvals(matrix)).max(), rel=0.03)
    assert norm == pytest.approx(np.linalg.norm(matrix, 2), rel=0.03)


def test_large_orthogonal_matrices_have_radius_and_norm_one() -> None:
    matrix = np.linalg.qr(np.random.default_rng(0).normal(size=(200, 200)))[0]
    assert spectrum(2 * matrix) == pytest.approx((2.0, 2.0))
    assert spectrum(np.zeros((200, 200))) == (0.0, 0.0)


def test_the_parts_of_a_weight_norm_are_no_matrices() -> None:
    lstm = nn.LSTM(INPUTS, HIDDEN)
    torch.nn.utils.weight_norm(lstm, "weight_hh_l0")
    assert matrices_of(lstm) == ()
