"""The gradient at each time step, against autograd by hand; and that nobody notices the measuring."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence
from torch.utils.checkpoint import checkpoint

from gradcheck_cli.observe.recorder import Recorder
from gradcheck_cli.observe.recorder_settings import RecorderSettings
from gradcheck_cli.observe.signals.recurrence import TIMES, positions
from gradcheck_cli.records import Floats, RunInfo
from gradcheck_cli.signals import RecurrenceSignals

BATCH, LENGTH, INPUTS, HIDDEN = 4, 7, 5, 8
Loss = Callable[[Any], Tensor]


class Sequence(nn.Module):
    """Scores from a recurrent module's output, of every step or of the last."""

    def __init__(self, rnn: nn.RNNBase, last: bool = False) -> None:
        super().__init__()
        self.rnn, self.last = rnn, last
        self.head = nn.Linear((rnn.proj_size or rnn.hidden_size) * (2 if rnn.bidirectional else 1), 3)

    def forward(self, x: Any) -> Tensor:
        output = self.rnn(x)[0]
        if isinstance(output, PackedSequence):
            return self.head(output.data)
        if self.last:
            output = output.select(1 if self.rnn.batch_first else 0, -1)
        return self.head(output)


def train(model: nn.Module, losses: list[Loss], recorded: bool = True) -> RecurrenceSignals | None:
    """One optimizer step for each loss, all of them probed."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = Recorder(model, optimizer, RecorderSettings(probe_every=1))
    with recorder if recorded else nullcontext():
        for loss in losses:
            optimizer.zero_grad()
            loss(model).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    signals = recorder.recording(RunInfo("", "cpu", "fp32", 0)).signals if recorded else None
    return signals.recurrence if signals else None


def measured(model: nn.Module, loss: Loss) -> Floats:
    """(times,): what one step records of the only recurrent module."""
    found = train(model, [loss])
    assert found is not None
    assert found.gradient_rms.shape[:2] == (1, 1)
    return found.gradient_rms[0, 0]


def by_hand(model: nn.Module, x: Tensor, dim: int) -> Floats:
    """(times,): RMS of the gradient of the mean square score, by autograd."""
    leaf = x.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(leaf).square().mean(), leaf)
    others = [axis for axis in range(x.dim()) if axis != dim]
    return np.sqrt(gradient.double().square().mean(others).numpy())


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2}, {"bidirectional": True}], ids=str)
@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_inputs_that_are_data(kind: type[nn.RNNBase], options: dict[str, Any], batch_first: bool, last: bool) -> None:
    torch.manual_seed(0)
    model = Sequence(kind(INPUTS, HIDDEN, batch_first=batch_first, **options), last)
    x = torch.randn(BATCH, LENGTH, INPUTS) if batch_first else torch.randn(LENGTH, BATCH, INPUTS)
    expected = by_hand(model, x, dim=1 if batch_first else 0)
    np.testing.assert_allclose(measured(model, lambda m: m(x).square().mean()), expected, rtol=1e-5)
    assert not x.requires_grad


def test_time_zero_comes_first() -> None:
    """With a loss on the last step, a forgetful network's gradient is largest at the end."""
    torch.manual_seed(0)
    rms = measured(Sequence(nn.RNN(INPUTS, HIDDEN), last=True), lambda m: m(torch.randn(20, BATCH, INPUTS)).sum())
    assert rms[-1] > 100 * rms[0]


def test_inputs_without_a_batch() -> None:
    torch.manual_seed(0)
    model, x = Sequence(nn.GRU(INPUTS, HIDDEN, batch_first=True)), torch.randn(LENGTH, INPUTS)
    expected = by_hand(model, x, dim=0)
    np.testing.assert_allclose(measured(model, lambda m: m(x).square().mean()), expected, rtol=1e-5)


def test_inputs_that_have_a_gradient() -> None:
    torch.manual_seed(0)
    model = Sequence(nn.LSTM(INPUTS, HIDDEN, batch_first=True))
    model.tokens = nn.Embedding(10, INPUTS)
    tokens = torch.randint(10, (BATCH, LENGTH))
    expected = by_hand(model, model.tokens(tokens), dim=1)
    np.testing.assert_allclose(measured(model, lambda m: m(m.tokens(tokens)).square().mean()), expected, rtol=1e-5)


@pytest.mark.parametrize("needs_gradient", [False, True])
def test_packed_sequences(needs_gradient: bool) -> None:
    """At each time step only the sequences that are that long count."""
    torch.manual_seed(0)
    lengths = [7, 5, 5, 2]
    model, x = Sequence(nn.LSTM(INPUTS, HIDDEN, batch_first=True)), torch.randn(BATCH, LENGTH, INPUTS)
    leaf = x.clone().requires_grad_()
    packed = pack_padded_sequence(leaf, lengths, batch_first=True)
    (gradient,) = torch.autograd.grad(model(packed).square().mean(), leaf)
    there = torch.arange(LENGTH) < torch.tensor(lengths)[:, None]
    mean = gradient.double().square().mean(2).sum(0) / there.sum(0)
    given = pack_padded_sequence(x.requires_grad_(needs_gradient), lengths, batch_first=True)
    rms = measured(model, lambda m: m(given).square().mean())
    np.testing.assert_allclose(rms, mean.sqrt().numpy(), rtol=1e-5)


class Cells(nn.Module):
    """A cell called once for each time step; `states` keeps its hidden states."""

    def __init__(self, cell: nn.RNNCellBase, checkpointed: bool = False) -> None:
        super().__init__()
        self.cell, self.head, self.checkpointed = cell, nn.Linear(HIDDEN, 3), checkpointed
        self.states: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        state: Any = None
        self.states = []
        for inputs in x.unbind(1):
            state = self.step(inputs, state)
            self.states.append(state[0] if isinstance(state, tuple) else state)
        return self.head(self.states[-1])

    def step(self, *inputs: Any) -> Any:
        return checkpoint(self.cell, *inputs, use_reentrant=False) if self.checkpointed else self.cell(*inputs)


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("kind", [nn.RNNCell, nn.LSTMCell, nn.GRUCell])
def test_cells_in_a_loop(kind: type[nn.RNNCellBase], checkpointed: bool) -> None:
    torch.manual_seed(0)
    model, x = Cells(kind(INPUTS, HIDDEN), checkpointed), torch.randn(BATCH, LENGTH, INPUTS)  # type: ignore[call-arg]
    gradients = torch.autograd.grad(model(x).square().mean(), model.states)
    expected = [float(gradient.double().square().mean().sqrt()) for gradient in gradients]
    np.testing.assert_allclose(measured(model, lambda m: m(x).square().mean()), expected, rtol=1e-5)


def test_long_series_are_sampled_with_both_ends() -> None:
    torch.manual_seed(0)
    model, x = Sequence(nn.GRU(INPUTS, HIDDEN, batch_first=True)), torch.randn(2, 300, INPUTS)
    expected = by_hand(model, x, dim=1)[positions(300)]
    found = train(model, [lambda m: m(x).square().mean()])
    assert found is not None
    np.testing.assert_allclose(found.gradient_rms[0, 0], expected, rtol=1e-5)
    assert found.lengths.tolist() == [300]


@pytest.mark.parametrize("length", [1, 2, TIMES - 1, TIMES, TIMES + 1, 1000])
def test_positions(length: int) -> None:
    chosen = positions(length)
    assert (chosen[0], chosen[-1]) == (0, length - 1)
    assert len(chosen) == min(length, TIMES)
    assert all(earlier < later for earlier, later in pairwise(chosen))


def test_of_an_accumulation_window_the_first_batch_counts() -> None:
    torch.manual_seed(0)
    model, batches = Sequence(nn.GRU(INPUTS, HIDDEN, batch_first=True)), torch.randn(3, BATCH, LENGTH, INPUTS)
    expected = by_hand(model, batches[0], dim=1)

    def accumulate(model: nn.Module) -> Tensor:
        for batch in batches[:2]:
            model(batch).square().mean().backward()
        return model(batches[2]).square().mean()

    np.testing.assert_allclose(measured(model, accumulate), expected, rtol=1e-5)


def test_fp16_with_a_scaler_keeps_the_shape() -> None:
    """The gradients are scaled, all time steps alike."""
    torch.manual_seed(0)
    model, x = Cells(nn.RNNCell(INPUTS, HIDDEN)), torch.randn(BATCH, LENGTH, INPUTS)
    optimizer, scaler = torch.optim.SGD(model.parameters(), lr=0.1), GradScaler("cpu", init_scale=1024.0)
    gradients = torch.autograd.grad(model(x).square().mean(), model.states)
    expected = np.array([float(gradient.double().square().mean().sqrt()) for gradient in gradients])
    recorder = Recorder(model, optimizer, RecorderSettings(probe_every=1))
    with recorder:
        with torch.autocast("cpu", torch.float16):
            loss = model(x).square().mean()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    signals = recorder.recording(RunInfo("", "cpu", "fp16", 0)).signals
    assert signals is not None
    rms = signals.recurrence.gradient_rms[0, 0]
    np.testing.assert_allclose(rms / rms[-1], expected / expected[-1], rtol=0.05)


def test_a_forward_without_gradients_before_the_real_one_does_not_count() -> None:
    torch.manual_seed(0)
    model, x = Sequence(nn.GRU(INPUTS, HIDDEN, batch_first=True)), torch.randn(BATCH, LENGTH, INPUTS)

    def evaluate_first(model: nn.Module) -> Tensor:
        with torch.no_grad():
            model(torch.randn(BATCH, 3, INPUTS))
        return model(x).square().mean()

    expected = by_hand(model, x, dim=1)
    np.testing.assert_allclose(measured(model, evaluate_first), expected, rtol=1e-5)


def test_frozen_modules_give_outputs_without_a_gradient() -> None:
    """As they do without a recorder: their output may go to numpy."""
    model, x = Sequence(nn.LSTM(INPUTS, HIDDEN, batch_first=True)), torch.randn(BATCH, LENGTH, INPUTS)
    model.rnn.requires_grad_(False)
    found = train(model, [lambda m: m.head(torch.from_numpy(m.rnn(x)[0].numpy().copy())).sum()])
    assert found is not None
    assert found.sites == ()


class InPlace(nn.GRU):
    """Writes into its input, which a tensor that requires a gradient would not allow."""

    def forward(self, x: Tensor, hx: Tensor | None = None) -> Any:
        return super().forward(x.mul_(0.5), hx)


def test_modules_that_write_into_their_input_may() -> None:
    model = Sequence(InPlace(INPUTS, HIDDEN, batch_first=True))
    train(model, [lambda m: m(torch.randn(BATCH, LENGTH, INPUTS)).sum()])


@pytest.mark.parametrize("needs_gradient", [False, True])
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_works_as_before(reentrant: bool, needs_gradient: bool) -> None:
    """It counts the tensors that are saved for backward."""
    torch.manual_seed(0)
    model = Sequence(nn.GRU(INPUTS, HIDDEN, batch_first=True))
    x = torch.randn(BATCH, LENGTH, INPUTS).requires_grad_(needs_gradient)
    found = train(model, [lambda m: m.head(checkpoint(lambda x: m.rnn(x)[0], x, use_reentrant=reentrant)).sum()])
    assert found is not None
    assert bool(found.sites) is needs_gradient


def test_an_input_that_outlives_the_step_keeps_no_hook() -> None:
    prompt = nn.Parameter(torch.randn(BATCH, LENGTH, INPUTS))
    train(Sequence(nn.GRU(INPUTS, HIDDEN, batch_first=True)), [lambda m: m(prompt).sum()] * 3)
    assert not prompt._backward_hooks


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "dropout": 0.3}, {"bidirectional": True}], ids=str)
@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_training_is_bit_identical(kind: type[nn.RNNBase], options: dict[str, Any], packed: bool) -> None:
    def parameters_after(recorded: bool) -> list[Tensor]:
        torch.manual_seed(0)
        model = Sequence(kind(INPUTS, HIDDEN, batch_first=True, **options))

        def loss(model: nn.Module) -> Tensor:
            x = torch.randn(BATCH, LENGTH, INPUTS)
            return model(pack_padded_sequence(x, [7, 5, 5, 2], batch_first=True) if packed else x).square().mean()

        train(model, [loss] * 5, recorded)
        return [*(parameter.detach() for parameter in model.parameters()), torch.get_rng_state()]

    pairs = zip(parameters_after(False), parameters_after(True), strict=True)
    assert all(torch.equal(bare, watched) for bare, watched in pairs)
