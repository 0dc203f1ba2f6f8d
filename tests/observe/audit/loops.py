"""Sound training loops of many kinds: no rule on the loop may say anything of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.optim import SGD, Adam, Optimizer, lr_scheduler

SOUND: list[Callable[[], None]] = []


def sound(loop: Callable[[], None]) -> Callable[[], None]:
    SOUND.append(loop)
    return loop


def network(dropout: float = 0.0) -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 3))


def batches(count: int) -> Iterator[tuple[Tensor, Tensor]]:
    for _ in range(count):
        yield torch.randn(6, 4), torch.randint(0, 3, (6,))


def loss_of(model: nn.Module) -> Tensor:
    ((inputs, labels),) = batches(1)
    return cross_entropy(model(inputs), labels)


@sound
def zero_at_the_end_with_zeros() -> None:
    model = network()
    optimizer = SGD(model.parameters(), 0.1, momentum=0.9)
    for _ in range(6):
        loss_of(model).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)


@sound
def zero_through_the_model() -> None:
    model = network()
    optimizer = Adam(model.parameters())
    for _ in range(6):
        model.zero_grad()
        loss_of(model).backward()
        optimizer.step()


@sound
def zero_by_none() -> None:
    model = network()
    optimizer = SGD(model.parameters(), 0.1)
    for _ in range(6):
        for parameter in model.parameters():
            parameter.grad = None
        loss_of(model).backward()
        optimizer.step()


@sound
def zero_through_data() -> None:
    model = network()
    optimizer = SGD(model.parameters(), 0.1)
    for _ in range(6):
        loss_of(model).backward()
        optimizer.step()
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.grad.data.zero_()


@sound
def zero_through_data_for_long() -> None:
    model = nn.Linear(4, 3)
    optimizer = SGD(model.parameters(), 0.01)
    for _ in range(260):
        loss_of(model).backward()
        optimizer.step()
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.grad.data.zero_()


@sound
def activations_without_nan() -> None:
    model = network()
    optimizer = SGD(model.parameters(), 0.1)
    for inputs, labels in batches(5):
        inputs[0, 0] = float("nan")
        optimizer.zero_grad()
        cross_entropy(model(inputs.nan_to_num(nan=0.0)), labels).backward()
        optimizer.step()


@sound
def accumulation_with_gradients_divided_by_hand() -> None:
    model = network()
    optimizer = SGD(model.parameters(), 0.1)
    for _ in range(4):
        optimizer.zero_grad()
        for _ in range(3):
            loss_of(model).backward()
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.grad.data.div_(3)
        optimizer.step()


@sound
def accumulation_of_sums_over_all_samples() -> None:
    model = network()
    optimizer = SGD(model.parameters(), 0.1)
    for _ in range(4):
        for inputs, labels in batches(3):
            (cross_entropy(model(inputs), labels, reduction="sum") / 18).backward()
        optimizer.step()
        optimizer.zero_grad()


@sound
def accumulation_of_sums() -> None:
    model = network()
    optimizer = SGD(model.parameters(), 0.01)
    for _ in range(4):
        for inputs, labels in batches(3):
            cross_entropy(model(inputs), labels, reduction="sum").backward()
        optimizer.step()
        optimizer.zero_grad()


@sound
def two_losses_by_two_calls() -> None:
    model = network()
    optimizer = SGD(model.parameters(), 0.1)
    for inputs, labels in batches(5):
        optimizer.zero_grad()
        outputs = model(inputs)
        cross_entropy(outputs, labels).backward(retain_graph=True)
        outputs.pow(2).mean().backward()
        optimizer.step()


@sound
def two_losses_by_one_helper() -> None:
    def add(loss: Tensor) -> None:
        loss.backward()

    model = network()
    optimizer = SGD(model.parameters(), 0.1)
    for _ in range(5):
        optimizer.zero_grad()
        add(loss_of(model))
        add(model[4].weight.pow(2).mean())
        optimizer.step()


@sound
def losses_of_one_graph_in_a_loop() -> None:
    model = network()
    optimizer = SGD(model.parameters(), 0.1)
    for inputs, labels in batches(5):
        optimizer.zero_grad()
        outputs = model(inputs)
        for loss in (cross_entropy(outputs, labels), outputs.pow(2).mean()):
            loss.backward(retain_graph=True)
        optimizer.step()


@sound
def lbfgs() -> None:
    model = nn.Linear(4, 1)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=5, line_search_fn="strong_wolfe")
    inputs = torch.randn(32, 4)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = mse_loss(model(inputs), inputs[:, :1])
        loss.backward()
        return loss

    for _ in range(4):
        optimizer.step(closure)


@sound
def a_framework_with_everything_in_the_closure() -> None:
    model = network()
    optimizer = Adam(model.parameters())
    scheduler = lr_scheduler.StepLR(optimizer, 2)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        return loss

    for _ in range(6):
        optimizer.step(closure)
        scheduler.step()


@sound
def sharpness_aware() -> None:
    model = network()
    optimizer = SGD(model.parameters(), 0.1)
    for inputs, labels in batches(5):
        steps = []
        for ascending in (True, False):
            cross_entropy(model(inputs), labels).backward()
            with torch.no_grad():
                if ascending:
                    steps = [0.05 * p.grad.sign() for p in model.parameters() if p.grad is not None]
                for parameter, step in zip(model.parameters(), steps, strict=True):
                    parameter.add_(step if ascending else -step)
            if ascending:
                optimizer.zero_grad()
        optimizer.step()
        optimizer.zero_grad()


@sound
def adversarial_examples() -> None:
    model = network()
    optimizer = SGD(model.parameters(), 0.1)
    for inputs, labels in batches(5):
        noise = torch.zeros_like(inputs, requires_grad=True)
        for _ in range(3):
            cross_entropy(model(inputs + noise), labels).backward()
            assert noise.grad is not None
            noise.data += 0.1 * noise.grad.sign()
            noise.grad = None
        optimizer.zero_grad()
        cross_entropy(model(inputs + noise.detach()), labels).backward()
        optimizer.step()


@sound
def gradient_penalty() -> None:
    critic = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = Adam(critic.parameters())
    for inputs, _ in batches(5):
        inputs.requires_grad_()
        optimizer.zero_grad()
        scores = critic(inputs)
        (slopes,) = torch.autograd.grad(scores.sum(), inputs, create_graph=True)
        (scores.mean() + 10 * (slopes.norm(dim=1) - 1).pow(2).mean()).backward()
        optimizer.step()


@sound
def adversaries_by_the_same_lines() -> None:
    generator, critic = nn.Linear(4, 4), nn.Linear(4, 1)
    makers = [SGD(critic.parameters(), 0.1), SGD(generator.parameters(), 0.1)]
    losses: list[Callable[[Tensor], Tensor]] = [
        lambda noise: critic(generator(noise).detach()).mean() - critic(noise).mean(),
        lambda noise: -critic(generator(noise)).mean(),
    ]
    for noise, _ in batches(6):
        for optimizer, loss in zip(makers, losses, strict=True):
            optimizer.zero_grad()
            loss(noise).backward()
            optimizer.step()


@sound
def per_sample_clipping() -> None:
    model = nn.Linear(4, 3)
    optimizer = SGD(model.parameters(), 0.1)
    for inputs, labels in batches(4):
        sums = [torch.zeros_like(p) for p in model.parameters()]
        for i in range(len(inputs)):
            model.zero_grad()
            cross_entropy(model(inputs[i : i + 1]), labels[i : i + 1]).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            for total, parameter in zip(sums, model.parameters(), strict=True):
                assert parameter.grad is not None
                total += parameter.grad
        for total, parameter in zip(sums, model.parameters(), strict=True):
            parameter.grad = total / len(inputs)
        optimizer.step()


@sound
def fine_tuning_with_frozen_normalisation() -> None:
    model = network(dropout=0.1)
    optimizer = SGD(model.parameters(), 0.1)
    for _ in range(6):
        model.train()
        model[1].eval()
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()


@sound
def a_teacher_in_eval_mode() -> None:
    teacher, student = network(dropout=0.5).eval(), network()
    optimizer = SGD(student.parameters(), 0.1)
    for inputs, _ in batches(5):
        with torch.no_grad():
            target = teacher(inputs)
        optimizer.zero_grad()
        mse_loss(student(inputs), target).backward()
        optimizer.step()


@sound
def an_average_of_the_weights() -> None:
    model = network(dropout=0.1)
    average = copy.deepcopy(model).eval()
    optimizer = SGD(model.parameters(), 0.1)
    for _ in range(5):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(average.parameters(), model.parameters(), strict=True):
                slow.lerp_(fast, 0.1)


@sound
def a_schedule_wound_on_for_a_resumed_run() -> None:
    model = network()
    optimizer = SGD(model.parameters(), 0.1)
    scheduler = lr_scheduler.StepLR(optimizer, 2)
    for _ in range(3):
        scheduler.step()
    for _ in range(5):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()
        scheduler.step()


@sound
def schedulers_of_all_kinds() -> None:
    model = network()
    optimizer = SGD(model.parameters(), 0.1)
    warmup, decay = lr_scheduler.LinearLR(optimizer), lr_scheduler.ExponentialLR(optimizer, 0.9)
    sequence = lr_scheduler.SequentialLR(optimizer, [warmup, decay], milestones=[2])
    restarts = lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 3)
    plateau = lr_scheduler.ReduceLROnPlateau(optimizer)
    for _ in range(4):
        optimizer.zero_grad()
        for _ in range(2):
            (loss_of(model) / 2).backward()
        optimizer.step()
        sequence.step()
        restarts.step()
        plateau.step(1.0)


@sound
def a_norm_that_is_only_logged() -> None:
    model = network()
    optimizer = SGD(model.parameters(), 0.1)
    for _ in range(5):
        optimizer.zero_grad()
        for _ in range(2):
            (loss_of(model) / 2).backward()
            nn.utils.clip_grad_norm_(model.parameters(), float("inf"))
        optimizer.step()
        nn.utils.clip_grad_norm_(model.parameters(), float("inf"))


@sound
def a_scaler_that_is_off() -> None:
    model = network()
    optimizer = SGD(model.parameters(), 0.1)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    for _ in range(5):
        optimizer.zero_grad()
        scaler.scale(loss_of(model)).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


@sound
def unscaled_by_hand() -> None:
    model = network()
    optimizer = SGD(model.parameters(), 0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    for _ in range(5):
        optimizer.zero_grad()
        scaler.scale(loss_of(model)).backward()
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.grad.data.mul_(1 / scaler.get_scale())
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


@sound
def a_scaler_that_skips_its_first_steps() -> None:
    model = network()
    optimizer = SGD(model.parameters(), 0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1e38)
    scheduler = lr_scheduler.StepLR(optimizer, 2)
    for _ in range(8):
        optimizer.zero_grad()
        scaler.scale(100 * loss_of(model)).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()


@sound
def scaled_losses_accumulated_after_the_scaler() -> None:
    model = network()
    optimizer = SGD(model.parameters(), 0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    for _ in range(5):
        optimizer.zero_grad()
        for _ in range(2):
            (scaler.scale(loss_of(model)) / 2).backward()
        scaler.step(optimizer)
        scaler.update()


@sound
def tasks_with_heads_of_their_own() -> None:
    trunk, heads = nn.Linear(4, 8), nn.ModuleList([nn.Linear(8, 3), nn.Linear(8, 3)])
    shared = [SGD([*trunk.parameters(), *head.parameters()], 0.1) for head in heads]
    for inputs, labels in batches(6):
        for head, optimizer in zip(heads, shared, strict=True):
            optimizer.zero_grad()
            cross_entropy(head(trunk(inputs)), labels).backward()
            optimizer.step()


@sound
def value_clipping_that_never_acts() -> None:
    model = network()
    optimizer = SGD(model.parameters(), 0.1)
    for _ in range(5):
        optimizer.zero_grad()
        loss_of(model).backward()
        nn.utils.clip_grad_value_(model.parameters(), 100.0)
        optimizer.step()


@sound
def an_unused_head_of_the_shape_of_another() -> None:
    model, probe = network(), nn.Linear(8, 3)
    optimizer = SGD([*model.parameters(), *probe.parameters()], 0.1)
    for _ in range(5):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()


@sound
def beside_a_head_that_was_trained_before() -> None:
    before = nn.Linear(8, 3)  # whoever trained it left its gradients
    before(torch.randn(4, 8)).sum().backward()
    an_unused_head_of_the_shape_of_another()


@sound
def a_sparse_embedding() -> None:
    table, head = nn.Embedding(50, 4, sparse=True), nn.Linear(4, 3)
    makers: list[Optimizer] = [torch.optim.SparseAdam(table.parameters()), SGD(head.parameters(), 0.1)]
    for _ in range(5):
        for optimizer in makers:
            optimizer.zero_grad()
        cross_entropy(head(table(torch.randint(0, 50, (6,)))), torch.randint(0, 3, (6,))).backward()
        for optimizer in makers:
            optimizer.step()


@sound
def checkpointed() -> None:
    model = network()
    optimizer = SGD(model.parameters(), 0.1)
    run: Any = torch.utils.checkpoint.checkpoint
    for inputs, labels in batches(5):
        optimizer.zero_grad()
        cross_entropy(run(model, inputs.requires_grad_(), use_reentrant=True), labels).backward()
        optimizer.step()


@sound
def updated_by_hand() -> None:
    model = network()
    for _ in range(5):
        model.zero_grad()
        loss_of(model).backward()
        with torch.no_grad():
            for parameter in model.parameters():
                assert parameter.grad is not None
                parameter -= 0.1 * parameter.grad
