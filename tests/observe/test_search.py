"""Which model is whose, where a script does not say it plainly."""

from __future__ import annotations

import weakref

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from gradcheck_cli.diagnose.layers import summarise
from tests.observe.session_loops import Made, Net, Trained, batches, sgd, train
from tests.observe.sessions import RUN, assert_bare, nobody, state_of, watch


def by_hand(made: Made) -> Trained:
    model = Net().eval()
    losses, norms = [], []
    for x, y in batches():
        loss = cross_entropy(model(x), y)
        model.zero_grad()
        loss.backward()
        losses.append(loss.item())
        norms.append(float(sum(p.grad.double().square().sum() for p in model.parameters()) ** 0.5))
        for parameter in model.parameters():
            parameter.data.add_(parameter.grad, alpha=-0.1)
    return Trained([model], [], [losses, norms])


def test_updates_by_hand_are_steps_from_one_forward_after_a_backward_to_the_next() -> None:
    seen = watch(by_hand)
    (found,) = seen.recordings
    assert seen.watched[0].by_hand
    np.testing.assert_allclose(found.series.loss, seen.trained.losses[0], rtol=1e-6)
    np.testing.assert_allclose(found.series.grad_norm, seen.trained.losses[1], rtol=1e-6)
    torch.manual_seed(0)
    bare = state_of(by_hand(nobody))
    assert all(map(torch.equal, bare, state_of(seen.trained)))
    assert_bare(seen.trained.models)


def test_an_optimizer_that_comes_after_a_backward_takes_the_place_of_updates_by_hand() -> None:
    def loop(made: Made) -> Trained:
        model = nn.Sequential(Net())
        cross_entropy(model(batches()[0][0]), batches()[0][1]).backward()
        return train(model, sgd(model[0]), batches())

    (one,) = watch(loop).watched
    assert not one.by_hand
    assert one.recorder.taken == 7


def test_a_second_optimizer_in_the_middle_is_a_run_of_its_own() -> None:
    def loop(made: Made) -> Trained:
        model = Net()
        train(model, sgd(model), batches())
        return train(model, sgd(model), batches(3))

    seen = watch(loop)
    first, second = seen.recordings
    assert (first.steps, second.steps) == (7, 3)
    assert np.isfinite(second.series.loss).all()
    assert len({one.name for one in seen.watched}) == 2


def test_of_one_model_with_two_optimizers_each_has_its_own_parameters() -> None:
    def loop(made: Made) -> Trained:
        model = Net()
        two = [sgd(model.first), torch.optim.AdamW(model.last.parameters())]
        for x, y in batches():
            cross_entropy(model(x), y).backward()
            for optimizer in two:
                optimizer.step()
                optimizer.zero_grad()
        return Trained([model], two)

    names = [[(p.name, p.in_optimizer) for p in found.parameters] for found in watch(loop).recordings]
    assert names == [[(f"{layer}.{p}", True) for p in ("weight", "bias")] for layer in ("first", "last")]


def test_gradients_that_are_thrown_away_are_none_of_the_next_step() -> None:
    """A guard against NaN leaves steps out."""

    def loop(made: Made) -> Trained:
        model = Net()
        optimizer = sgd(model)
        for number, (x, y) in enumerate(batches()):
            optimizer.zero_grad()
            (cross_entropy(model(x), y) * (float("nan") if number == 3 else 1)).backward()
            if torch.isfinite(nn.utils.clip_grad_norm_(model.parameters(), 1.0)):
                optimizer.step()
        return Trained([model], [optimizer])

    (found,) = watch(loop).recordings
    assert found.steps == 6
    assert np.isfinite(found.series.loss).all()
    assert np.isfinite(found.series.grad_norm).all()


def test_a_step_without_a_backward_does_not_end_the_recording() -> None:
    def loop(made: Made) -> Trained:
        model = Net()
        optimizer = sgd(model)
        for x, y in batches():
            gradients = torch.autograd.grad(cross_entropy(model(x), y), list(model.parameters()))
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()
        return Trained([model], [optimizer])

    (one,) = watch(loop).watched
    assert one.recorder.recording(RUN).steps == 7
    assert not one.recorder.ended


def test_a_name_is_the_scripts_own_and_keeps_nothing_alive() -> None:
    class Trainer:
        def __init__(self) -> None:
            self.policy = Net()
            self.optimizer = sgd(self.policy)

        def run(self) -> None:
            watched_batch = batches()[0][0]
            alive = weakref.ref(watched_batch)
            cross_entropy(self.policy(watched_batch), batches()[0][1]).backward()
            del watched_batch
            self.optimizer.step()
            assert alive() is None

    def loop(made: Made) -> Trained:
        trainer = Trainer()
        trainer.run()
        return Trained([trainer.policy], [trainer.optimizer])

    assert [one.name for one in watch(loop).watched] == ["policy"]


def test_what_is_trained_without_a_module_has_its_variables_name() -> None:
    def loop(made: Made) -> Trained:
        left, right, log_alpha = Net(), Net(), torch.zeros((), requires_grad=True)
        both = torch.optim.SGD([*left.parameters(), *right.parameters()], lr=0.01)
        temperature = torch.optim.SGD([log_alpha], lr=0.01)
        for x, y in batches():
            both.zero_grad()
            temperature.zero_grad()
            (cross_entropy(left(x) + right(x), y) * log_alpha.exp()).backward()
            both.step()
            temperature.step()
        return Trained([left, right], [both, temperature])

    found = watch(loop)
    assert [one.name for one in found.watched] == ["left_right", "log_alpha"]
    (layer,) = summarise(found.recordings[1], ())
    assert (layer.name, layer.type, layer.numel, layer.status) == ("optimizer.0", "Parameter", 1, "ok")
    assert layer.grad_rms > 0


def test_the_scripts_name_goes_before_that_of_its_function() -> None:
    def train(model: Net, optimizer: torch.optim.Optimizer) -> None:
        for x, y in batches():
            optimizer.zero_grad()
            cross_entropy(model(x), y).backward()
            optimizer.step()

    def loop(made: Made) -> Trained:
        teacher, student = Net(), Net()
        optimizers = [sgd(teacher), sgd(student)]
        train(teacher, optimizers[0])
        train(student, optimizers[1])
        return Trained([teacher, student], optimizers)

    assert [one.name for one in watch(loop).watched] == ["teacher", "student"]
