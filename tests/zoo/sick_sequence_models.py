"""Broken: recurrences through which gradients explode or vanish."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from tests.zoo.data import digit_rows, language, workload
from tests.zoo.sequence_models import RecurrentLM
from tests.zoo.specimen import broken


class Last(nn.Module):
    """A recurrent network over pixels or rows, judged by its last step."""

    def __init__(self, rnn: nn.RNNBase) -> None:
        super().__init__()
        self.rnn, self.head = rnn, nn.Linear(rnn.hidden_size, 10)

    def forward(self, rows: Tensor) -> Tensor:
        return self.head(self.rnn(rows)[0][:, -1])


def with_radius(rnn: nn.RNNBase, radius: float) -> nn.RNNBase:
    """Scale the recurrent matrices to that spectral radius."""
    for name, parameter in rnn.named_parameters():
        if name.startswith("weight_hh"):
            nn.init.orthogonal_(parameter, radius)
    return rnn


@broken("GC606", quick=True)
def relu_rnn_radius_15() -> dict[str, Any]:
    """A ReLU network with a recurrent matrix of radius 1.5, over 32 steps. Pascanu et al., 2013."""
    rnn = with_radius(nn.RNN(2, 64, nonlinearity="relu", batch_first=True), 1.8)
    return workload(Last(rnn), digit_rows(32), nn.CrossEntropyLoss())


@broken("GC606", quick=True)
def tanh_rnn_radius_15() -> dict[str, Any]:
    """The same with tanh, at small inputs."""
    rows, labels = digit_rows(16)
    rnn = with_radius(nn.RNN(4, 64, batch_first=True), 1.5)
    nn.init.zeros_(rnn.bias_ih_l0)
    nn.init.zeros_(rnn.bias_hh_l0)
    return workload(Last(rnn), (0.001 * rows, labels), nn.CrossEntropyLoss())


@broken("GC606")
def tanh_rnn_normal() -> dict[str, Any]:
    """A recurrent matrix at N(0, 1/sqrt(width)) times 2, at the rows of a digit."""
    rnn = nn.RNN(2, 64, batch_first=True)
    nn.init.normal_(rnn.weight_hh_l0, std=2 / 8)
    return workload(Last(rnn), digit_rows(32), nn.CrossEntropyLoss())


@broken("GC606")
def linear_cell_loop() -> dict[str, Any]:
    """A cell that is called in a loop, whose matrix lengthens the state by a half each time."""

    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.head = nn.RNNCell(4, 48, nonlinearity="relu"), nn.Linear(48, 10)
            nn.init.orthogonal_(self.cell.weight_hh, 2.0)

        def forward(self, rows: Tensor) -> Tensor:
            state = rows.new_zeros(len(rows), 48)
            for row in rows.unbind(1):
                state = self.cell(row, state)
            return self.head(state)

    return workload(Loop(), digit_rows(16), nn.CrossEntropyLoss())


@broken("GC606", severity="info", quick=True)
def lstm_last_step() -> dict[str, Any]:
    """64 pixels, torch's default initialisation, a loss of the last step: the beginning is forgotten."""
    return workload(Last(nn.LSTM(1, 64, batch_first=True)), digit_rows(64), nn.CrossEntropyLoss())


@broken("GC606", severity="info")
def rnn_small_radius() -> dict[str, Any]:
    """A recurrent matrix of radius 0.5 over 32 steps."""
    rnn = with_radius(nn.RNN(2, 64, batch_first=True), 0.5)
    return workload(Last(rnn), digit_rows(32), nn.CrossEntropyLoss())


@broken("GC606", "GC607", severity="info")
def rnn_lm_radius_2() -> dict[str, Any]:
    """A recurrent matrix of radius 2 in a network that tanh holds back."""
    model = RecurrentLM(nn.RNN, 1)
    with_radius(model.rnn, 2.0)
    return language(model)
