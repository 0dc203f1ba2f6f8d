"""Held out while nan-trace was made, from reports of users: reinforcement learning, detection, depth, speech."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Beta, Categorical, Normal
from torch.nn import functional

from tests.nan_corpus.corpus import case

Batch = dict[str, Tensor]


def train(model: nn.Module, batches: list[Any], step: Callable[[Any, Any], Tensor], lr: float = 0.01) -> dict[str, Any]:
    """The parts of a run with SGD."""
    optimizer = torch.optim.SGD(model.parameters(), lr)
    return {"model": model, "dataloader": batches, "training_step": step, "optimizer": optimizer}


@case(phase="loss", op="aten::exp", cause="double-where", kind="inf", step=1, samples=(2,))
def ppo_ratio_of_a_stale_action() -> dict[str, Any]:
    """The clipped branch wins, so that the loss is finite; the branch that lost multiplies its Inf by 0."""

    def training_step(policy: nn.Module, rollout: Batch) -> Any:
        distribution = Categorical(logits=policy(rollout["observation"]))
        log_ratio = distribution.log_prob(rollout["action"]) - rollout["old_log_prob"]  # type: ignore[no-untyped-call]
        ratio = log_ratio.exp()  # origin
        surrogate = torch.min(ratio * rollout["advantage"], ratio.clamp(0.8, 1.2) * rollout["advantage"])
        return -surrogate.mean() - 0.01 * distribution.entropy().mean()  # type: ignore[no-untyped-call]

    policy = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    rollouts = [
        {
            "observation": torch.randn(5, 4),
            "action": torch.randint(0, 3, (5,)),
            "old_log_prob": torch.full((5,), -1.1),
            "advantage": torch.rand(5) + 0.1,
        }
        for _ in range(2)
    ]
    rollouts[1]["old_log_prob"][2] = -104.0
    return train(policy, rollouts, training_step)


@case(phase="forward", op="aten::log", cause="log-of-negative", samples=(1, 3))
def sac_action_scaled_before_its_log_prob() -> dict[str, Any]:
    class Actor(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean = nn.Linear(3, 2)
            self.log_std = nn.Linear(3, 2)
            self.max_action = 2.0

        def forward(self, state: Tensor) -> tuple[Tensor, Tensor]:
            normal = Normal(self.mean(state), self.log_std(state).clamp(-20, -4).exp())
            raw = normal.rsample()
            action = torch.tanh(raw) * self.max_action
            log_prob = normal.log_prob(raw) - torch.log(1 - action.pow(2) + 1e-6)  # type: ignore[no-untyped-call]  # origin
            return action, log_prob.sum(1)

    def training_step(actor: Actor, state: Tensor) -> Any:
        action, log_prob = actor(state)
        return (0.2 * log_prob + action.square().sum(1)).mean()

    actor = Actor()
    state = 0.1 * torch.rand(4, 3)
    nn.init.constant_(actor.mean.weight, 1.0)
    nn.init.zeros_(actor.mean.bias)
    state[[1, 3]] = 1.0
    return train(actor, [state], training_step)


@case(phase="forward", op="aten::div", cause="zero-divided-by-zero")
def reward_scaling_after_one_transition() -> dict[str, Any]:
    """Welford's variance of one number is 0 / 0."""

    class RunningVariance:
        def __init__(self) -> None:
            self.count, self.mean, self.squares = torch.zeros(()), torch.zeros(()), torch.zeros(())

        def update(self, value: Tensor) -> Tensor:
            self.count = self.count + 1
            delta = value - self.mean
            self.mean = self.mean + delta / self.count
            self.squares = self.squares + delta * (value - self.mean)
            return self.squares / (self.count - 1)  # origin

    running = RunningVariance()

    def training_step(critic: nn.Module, transition: Batch) -> Tensor:
        reward = transition["reward"] / (running.update(transition["reward"]) + 1e-8).sqrt()
        return functional.mse_loss(critic(transition["state"]).squeeze(), reward)

    critic = nn.Linear(3, 1)
    transitions = [{"state": torch.randn(3), "reward": torch.rand(())} for _ in range(4)]
    return train(critic, transitions, training_step)


@case(phase="loss", op="aten::xlogy", kind="inf", samples=(0,), cause="xlogy-of-zero")
def beta_policy_at_the_end_of_its_range() -> dict[str, Any]:
    def training_step(policy: nn.Module, batch: Batch) -> Any:
        alpha, beta = (1 + functional.softplus(policy(batch["state"]))).unbind(-1)
        log_prob = Beta(alpha, beta).log_prob(batch["action"])  # type: ignore[no-untyped-call]  # origin
        return -(log_prob * batch["advantage"]).mean()

    policy = nn.Linear(3, 2)
    batch = {"state": torch.randn(4, 3), "action": torch.rand(4), "advantage": torch.rand(4) + 0.5}
    batch["action"][0] = 1.0
    return train(policy, [batch], training_step)


@case(phase="loss", op="aten::div", cause="zero-divided-by-zero", samples=(2,))
def ciou_of_a_perfect_box() -> dict[str, Any]:
    class BoxHead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.refine = nn.Linear(4, 4)
            nn.init.zeros_(self.refine.weight)
            nn.init.zeros_(self.refine.bias)

        def forward(self, anchors: Tensor) -> Any:
            return anchors + self.refine(anchors)

    def ciou(box: Tensor, target: Tensor) -> Tensor:
        low, high = torch.max(box[:, :2], target[:, :2]), torch.min(box[:, 2:], target[:, 2:])
        size, target_size = box[:, 2:] - box[:, :2], target[:, 2:] - target[:, :2]
        overlap = (high - low).clamp(min=0).prod(1)
        iou = overlap / (size.prod(1) + target_size.prod(1) - overlap)
        angles = torch.atan(target_size[:, 0] / target_size[:, 1]) - torch.atan(size[:, 0] / size[:, 1])
        v = 4 / torch.pi**2 * angles.pow(2)
        with torch.no_grad():
            alpha = v / (1 - iou + v)  # origin
        return 1 - iou + v * alpha

    def training_step(head: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return ciou(head(batch[0]), batch[1]).mean()

    corner = torch.randint(0, 4, (4, 2)).float()
    anchors = torch.cat((corner, corner + torch.randint(2, 6, (4, 2))), 1)
    targets = anchors + torch.tensor([0.0, 0.0, 1.0, 0.5])
    targets[2] = anchors[2]
    return train(BoxHead(), [(anchors, targets)], training_step)


@case(phase="loss", op="aten::log", cause="log-of-zero", kind="inf", step=2, samples=(1,))
def box_deltas_of_a_box_without_width() -> dict[str, Any]:
    def encode(boxes: Tensor, proposals: Tensor) -> Tensor:
        sizes, centres = boxes[:, 2:] - boxes[:, :2], (boxes[:, 2:] + boxes[:, :2]) / 2
        own_sizes, own_centres = proposals[:, 2:] - proposals[:, :2], (proposals[:, 2:] + proposals[:, :2]) / 2
        scales = torch.log(sizes / own_sizes)  # origin
        return torch.cat(((centres - own_centres) / own_sizes, scales), 1)

    def training_step(head: nn.Module, image: Batch) -> Tensor:
        return functional.smooth_l1_loss(head(image["features"]), encode(image["boxes"], image["proposals"]))

    def image() -> Batch:
        corner = torch.rand(2, 3, 2)
        boxes, proposals = torch.cat((corner, corner + 0.2 + torch.rand(2, 3, 2)), 2)
        return {"features": torch.randn(3, 6), "boxes": boxes, "proposals": proposals}

    images = [image() for _ in range(3)]
    images[2]["boxes"][1, 2] = images[2]["boxes"][1, 0]
    return train(nn.Linear(6, 4), images, training_step)


@case(
    phase="loss", op="aten::div", cause="zero-divided-by-zero", micro_batch=1, samples=(0,), settings={"accumulate": 2}
)
def dice_of_an_image_that_is_all_void() -> dict[str, Any]:
    def dice_loss(logits: Tensor, mask: Tensor, void: Tensor) -> Tensor:
        probability = logits.sigmoid().squeeze(1).masked_fill(void, 0.0).flatten(1)
        mask = mask.masked_fill(void, 0.0).flatten(1)
        dice = 2 * (probability * mask).sum(1) / (probability.square().sum(1) + mask.square().sum(1))  # origin
        return 1 - dice.mean()

    def training_step(net: nn.Module, batch: Batch) -> Tensor:
        return dice_loss(net(batch["image"]), batch["mask"], batch["void"])

    def batch() -> Batch:
        image, mask = torch.randn(3, 1, 5, 5), torch.randint(0, 2, (3, 5, 5)).float()
        return {"image": image, "mask": mask, "void": torch.rand(3, 5, 5) > 0.8}

    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(4, 1, 1))
    batches = [batch(), batch()]
    batches[1]["void"][0] = True
    return train(net, batches, training_step)


@case(phase="backward", op="aten::sqrt", cause="sqrt-at-zero", kind="inf")
def scale_invariant_loss_of_a_perfect_depth() -> dict[str, Any]:
    class Depth(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 3, padding=1)
            nn.init.zeros_(self.conv.weight)
            nn.init.zeros_(self.conv.get_parameter("bias"))

        def forward(self, image: Tensor) -> Tensor:
            return 10 * torch.sigmoid(self.conv(image))

    def silog(depth: Tensor, truth: Tensor) -> Tensor:
        difference = torch.log(depth) - torch.log(truth)
        return 10 * torch.sqrt(difference.pow(2).mean() - 0.85 * difference.mean().pow(2))  # origin

    def training_step(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return silog(net(batch[0]), batch[1])

    return train(Depth(), [(torch.rand(2, 1, 4, 4), torch.full((2, 1, 4, 4), 5.0))], training_step)


@case(phase="loss", op="aten::div", cause="zero-divided-by-zero", step=1, samples=(3,))
def si_sdr_of_a_silent_speaker() -> dict[str, Any]:
    def negative_si_sdr(estimate: Tensor, source: Tensor) -> Tensor:
        source = source - source.mean(-1, keepdim=True)
        scale = (estimate * source).sum(-1, keepdim=True) / source.square().sum(-1, keepdim=True)  # origin
        projection = scale * source
        noise = estimate - projection
        ratio = projection.square().sum(-1) / (noise.square().sum(-1) + 1e-8)
        return -10 * torch.log10(ratio + 1e-8).mean()

    def training_step(net: nn.Module, batch: Batch) -> Tensor:
        return negative_si_sdr(net(batch["mixture"][:, None])[:, 0], batch["source"])

    batches = [{"mixture": torch.randn(4, 12), "source": torch.randn(4, 12)} for _ in range(2)]
    batches[1]["source"][3] = 0
    return train(nn.Conv1d(1, 1, 3, padding=1), batches, training_step)


@case(phase="loss", op="aten::div", cause="normalise-zero-vector", kind="inf", samples=(1,))
def spectral_convergence_of_silence() -> dict[str, Any]:
    def spectral_convergence(wave: Tensor, truth: Tensor) -> Any:
        window = torch.hann_window(8)
        made, wanted = (torch.stft(x, 8, 4, window=window, return_complex=True).abs() for x in (wave, truth))
        norm, wanted_norm = (torch.linalg.matrix_norm(x) for x in (wanted - made, wanted))
        return (norm / wanted_norm).mean()  # origin

    def training_step(vocoder: nn.Module, batch: Batch) -> Any:
        return spectral_convergence(vocoder(batch["mel"]), batch["wave"])

    batch = {"mel": torch.randn(3, 6), "wave": torch.randn(3, 32)}
    batch["wave"][1] = 0
    return train(nn.Linear(6, 32), [batch], training_step)
