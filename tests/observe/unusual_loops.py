"""Training loops whose models are harder to find, and two that train two of them."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, mse_loss, one_hot
from torch.optim import SGD, Adam

from tests.observe.session_loops import Made, Net, Trained, batches, sgd, train


def parameters_in_no_call(made: Made) -> Trained:
    """Neither the model nor anything in it is called."""
    model = Net()
    optimizer = sgd(model)
    made(model, optimizer)
    for x, y in batches():
        optimizer.zero_grad()
        cross_entropy(model.forward(x), y).backward()
        optimizer.step()
    return Trained([model], [optimizer])


def tensors_without_a_module(made: Made) -> Trained:
    weights = torch.randn(6, 5, requires_grad=True)
    optimizer = SGD([weights], lr=0.1)
    made(nn.Module(), optimizer)
    for x, y in batches():
        optimizer.zero_grad()
        cross_entropy(x @ weights, y).backward()
        optimizer.step()
    return Trained([], [optimizer])


def copied_optimizer(made: Made) -> Trained:
    model = Net()
    model_and_optimizer = copy.deepcopy((model, sgd(model)))
    made(*model_and_optimizer)
    return train(*model_and_optimizer, batches())


def submodules_of_nothing(made: Made) -> Trained:
    """One optimizer for two models that nothing holds together."""
    encoder, decoder = nn.Linear(6, 3), nn.Linear(3, 6)
    optimizer = Adam([*encoder.parameters(), *decoder.parameters()], lr=0.01)
    made(nn.ModuleDict({"encoder": encoder, "decoder": decoder}), optimizer)
    for x, _ in batches():
        optimizer.zero_grad()
        mse_loss(decoder(encoder(x).relu()), x).backward()
        nn.utils.clip_grad_norm_([*encoder.parameters(), *decoder.parameters()], 0.1)
        optimizer.step()
    return Trained([encoder, decoder], [optimizer])


def gan(made: Made) -> Trained:
    generator, critic = nn.Linear(3, 6), Net(1)
    both = Trained([generator, critic], [Adam(generator.parameters(), lr=0.01), Adam(critic.parameters(), lr=0.02)])
    for model, optimizer in zip(both.models, both.optimizers, strict=True):
        made(model, optimizer)
    yes, no = torch.ones(8, 1), torch.zeros(8, 1)
    for x, _ in batches():
        fake = generator(torch.randn(8, 3))
        both.optimizers[1].zero_grad()
        real_loss = binary_cross_entropy_with_logits(critic(x), yes)
        fake_loss = binary_cross_entropy_with_logits(critic(fake.detach()), no)
        real_loss.backward()
        fake_loss.backward()
        both.note(1, real_loss + fake_loss)
        both.optimizers[1].step()
        both.optimizers[0].zero_grad()
        loss = binary_cross_entropy_with_logits(critic(fake), yes)
        loss.backward()
        both.note(0, loss)
        nn.utils.clip_grad_norm_(generator.parameters(), 0.05)
        both.optimizers[0].step()
    return both


def actor_critic(made: Made) -> Trained:
    """Both backwards before both steps."""
    actor, critic = Net(), Net(1)
    both = Trained([actor, critic], [Adam(actor.parameters(), lr=0.01), sgd(critic)])
    for model, optimizer in zip(both.models, both.optimizers, strict=True):
        made(model, optimizer)
    for x, y in batches():
        values = critic(x)[:, 0]
        chosen = (torch.log_softmax(actor(x), 1) * one_hot(y, 5)).sum(1)
        losses = [-(chosen * (1 - values).detach()).mean(), mse_loss(values, torch.ones(8))]
        for optimizer in both.optimizers:
            optimizer.zero_grad()
        for loss in losses:
            loss.backward()
        for number, optimizer in enumerate(both.optimizers):
            both.note(number, losses[number])
            optimizer.step()
    return both
