"""Healthy recurrent networks and state-space models."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.data import VOCABULARY, digit_rows, language, loader, make_optimizer, tokens, workload
from tests.zoo.layers import Residual
from tests.zoo.specimen import healthy


class RecurrentLM(nn.Module):
    """Scores of each next character."""

    def __init__(self, kind: type[nn.RNNBase], layers: int, width: int = 64) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, width)
        self.rnn = kind(width, width, layers, batch_first=True)
        self.head = nn.Linear(width, VOCABULARY)

    def forward(self, numbers: Tensor) -> Tensor:
        return self.head(self.rnn(self.tokens(numbers))[0])


@healthy()
def lstm_1() -> dict[str, Any]:
    return language(RecurrentLM(nn.LSTM, 1))


@healthy(quick=True)
def lstm_2() -> dict[str, Any]:
    return language(RecurrentLM(nn.LSTM, 2))


@healthy()
def lstm_3() -> dict[str, Any]:
    return language(RecurrentLM(nn.LSTM, 3))


@healthy()
def lstm_4() -> dict[str, Any]:
    return language(RecurrentLM(nn.LSTM, 4))


@healthy()
def gru_1() -> dict[str, Any]:
    return language(RecurrentLM(nn.GRU, 1))


@healthy(quick=True)
def gru_2() -> dict[str, Any]:
    return language(RecurrentLM(nn.GRU, 2))


@healthy()
def gru_4() -> dict[str, Any]:
    return language(RecurrentLM(nn.GRU, 4))


@healthy()
def elman_rnn() -> dict[str, Any]:
    """A plain tanh network over the eight rows of a digit."""

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.RNN(8, 64, batch_first=True), nn.Linear(64, 10)

        def forward(self, rows: Tensor) -> Tensor:
            return self.head(self.rnn(rows)[0][:, -1])

    return workload(Classifier(), digit_rows(8), nn.CrossEntropyLoss())


@healthy()
def bidirectional_lstm() -> dict[str, Any]:
    """Mean over time of both directions."""

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.LSTM(8, 48, bidirectional=True, batch_first=True), nn.Linear(96, 10)

        def forward(self, rows: Tensor) -> Tensor:
            return self.head(self.rnn(rows)[0].mean(1))

    return workload(Classifier(), digit_rows(8), nn.CrossEntropyLoss(), lr=3e-3)


@healthy()
def gru_cell() -> dict[str, Any]:
    """A cell in a hand-written loop."""

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.head = nn.GRUCell(8, 64), nn.Linear(64, 10)

        def forward(self, rows: Tensor) -> Tensor:
            state = rows.new_zeros(len(rows), 64)
            for row in rows.unbind(1):
                state = self.cell(row, state)
            return self.head(state)

    return workload(Classifier(), digit_rows(8), nn.CrossEntropyLoss(), lr=3e-3)


class Translator(nn.Module):
    """Bahdanau et al., 2015: a GRU reads, another writes and looks back with additive attention."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, width)
        self.encoder, self.decoder = nn.GRU(width, width, batch_first=True), nn.GRU(width, width, batch_first=True)
        self.query, self.key, self.energy = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, 1)
        self.head = nn.Linear(2 * width, VOCABULARY)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        memory, state = self.encoder(self.tokens(source))
        written, _ = self.decoder(self.tokens(target), state)
        energy = self.energy(torch.tanh(self.query(written)[:, :, None] + self.key(memory)[:, None]))[..., 0]
        return self.head(torch.cat([written, torch.softmax(energy, -1) @ memory], -1))


@healthy()
def seq2seq_with_attention() -> dict[str, Any]:
    """Write the text backwards."""

    def training_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        source = batch[0]
        target = source.flip(1)
        shifted = functional.pad(target[:, :-1], (1, 0))
        return functional.cross_entropy(model(source, shifted).flatten(0, 1), target.flatten())

    model = Translator()
    data, adam = loader(*tokens(16)), make_optimizer(model, "adam", 2e-3)
    return {"model": model, "dataloader": data, "training_step": training_step, "optimizer": adam}


class SelectiveScan(nn.Module):
    """Mamba's block in plain torch: gate, short convolution, input-dependent scan. Gu and Dao, 2023, section 3."""

    def __init__(self, width: int, states: int = 8) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(width, 4 * width, bias=False), nn.Linear(2 * width, width, bias=False)
        self.conv = nn.Conv1d(2 * width, 2 * width, 4, padding=3, groups=2 * width)
        self.step, self.between = nn.Linear(2 * width, 2 * width), nn.Linear(2 * width, 2 * states, bias=False)
        nn.init.uniform_(self.step.bias, -4.6, -2.3)
        self.log_rate = nn.Parameter(torch.arange(1, states + 1.0).log().repeat(2 * width, 1))
        self.skip = nn.Parameter(torch.ones(2 * width))

    def forward(self, x: Tensor) -> Tensor:
        u, gate = self.enter(x).chunk(2, -1)
        u = functional.silu(self.conv(u.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2))
        step = functional.softplus(self.step(u))
        into, out = self.between(u).chunk(2, -1)
        decay = torch.exp(-step[..., None] * self.log_rate.exp())
        drive = (step * u)[..., None] * into[:, :, None]
        state, made = torch.zeros_like(drive[:, 0]), []
        for time in range(x.shape[1]):
            state = decay[:, time] * state + drive[:, time]
            made.append((state * out[:, time, None]).sum(-1))
        return self.leave((torch.stack(made, 1) + self.skip * u) * functional.silu(gate))


class MambaLM(nn.Module):
    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, width)
        branches = [nn.Sequential(nn.RMSNorm(width), SelectiveScan(width)) for _ in range(depth)]
        self.blocks = nn.ModuleList(Residual(branch) for branch in branches)
        self.norm, self.head = nn.RMSNorm(width), nn.Linear(width, VOCABULARY, bias=False)
        nn.init.normal_(self.tokens.weight, std=0.02)
        self.head.weight = self.tokens.weight

    def forward(self, numbers: Tensor) -> Tensor:
        x = self.tokens(numbers)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


@healthy()
def mamba_scan() -> dict[str, Any]:
    return language(MambaLM(32, 4), 16)


class DilatedBlock(nn.Module):
    """A causal convolution and a shortcut. Bai et al., 2018."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.conv, self.reach = nn.Conv1d(width, width, 3, dilation=dilation), 2 * dilation

    def forward(self, x: Tensor) -> Tensor:
        return x + functional.relu(self.conv(functional.pad(x, (self.reach, 0))))


class ConvolutionLM(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, width)
        self.blocks = nn.ModuleList(DilatedBlock(width, 2**number) for number in range(4))
        self.head = nn.Linear(width, VOCABULARY)

    def forward(self, numbers: Tensor) -> Tensor:
        x = self.tokens(numbers).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        return self.head(x.transpose(1, 2))


@healthy()
def temporal_convolutions() -> dict[str, Any]:
    return language(ConvolutionLM(48))
