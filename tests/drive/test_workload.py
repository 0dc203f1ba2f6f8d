"""What an entrypoint may return, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from gradcheck_cli.errors import TargetError
from tests.drive.conftest import Run
from tests.drive.training import batches, parts

Profile = Callable[..., Run]
TUPLE = "from tiny import *\ndef build(): return net(), data(), mse\n"


def refusal(call: Callable[[], Any]) -> TargetError:
    with pytest.raises(TargetError) as caught:
        call()
    assert caught.value.hint
    return caught.value


class Named(NamedTuple):
    """In an order of its own."""

    optimizer: Any
    dataloader: Any
    model: Any
    loss_fn: Any


FORMS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "mapping": lambda made: made,
    "tuple of 3": lambda made: (made["model"], made["dataloader"], made["loss_fn"]),
    "tuple of 4": lambda made: (made["model"], made["dataloader"], made["loss_fn"], made["optimizer"]),
    "list": lambda made: [made["model"], made["dataloader"], made["loss_fn"]],
    "object": lambda made: SimpleNamespace(**made),
    "named tuple": lambda made: Named(**made),
    "extra keys": lambda made: {**made, "tokenizer": object(), "config": {}},
    "None for what is left out": lambda made: {**made, "scheduler": None, "training_step": None},
}


@pytest.mark.parametrize("form", FORMS)
def test_forms(profile: Profile, form: str) -> None:
    report, error = profile(lambda: FORMS[form](parts()))
    assert error is None
    assert report.run.has_optimizer is (form not in ("tuple of 3", "list"))


class OwnLoss(nn.Linear):
    """Like a model of transformers: computes its loss itself."""

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Any:  # type: ignore[override]
        output = super().forward(x)
        return self.packed(None if labels is None else (output - labels).square().mean())

    def packed(self, loss: Any) -> Any:
        return SimpleNamespace(loss=loss)


class OwnLossInMapping(OwnLoss):
    def packed(self, loss: Any) -> Any:
        return {} if loss is None else {"loss": loss}


@pytest.mark.parametrize("kind", [OwnLoss, OwnLossInMapping])
def test_a_model_may_compute_its_own_loss(profile: Profile, kind: type[OwnLoss]) -> None:
    loader = [{"x": inputs, "labels": target} for inputs, target in batches(2)]
    report, error = profile(lambda: (kind(3, 1), loader))
    assert error is None
    assert (report.series.loss > 0).all()


@pytest.mark.parametrize("kind", [OwnLoss, OwnLossInMapping])
def test_a_model_without_a_loss_is_told_apart(profile: Profile, kind: type[OwnLoss]) -> None:
    error = refusal(lambda: profile(lambda: (kind(3, 1), [{"x": torch.ones(2, 3)}])))
    assert "has no loss" in error.message
    assert "training_step" in error.hint


def test_the_criterion_of_a_training_step_is_not_called(profile: Profile) -> None:
    def step(model: nn.Module, batch: Any) -> Tensor:
        return model(batch[0]).sum()  # type: ignore[no-any-return]

    assert profile(lambda: {**parts(), "loss_fn": lambda *_: 1 / 0, "training_step": step})[1] is None


REFUSED: dict[str, tuple[Callable[[], Any], str, str]] = {
    "nothing": (lambda: None, "no model", "return a mapping"),
    "no model": (lambda: {"dataloader": []}, "no model", "return a mapping"),
    "no dataloader": (lambda: {"model": nn.Linear(1, 1)}, "no dataloader", "return a mapping"),
    "a tuple of 1": (lambda: (nn.Linear(1, 1),), "a tuple of 1", "(model, dataloader[, loss_fn[, optimizer]])"),
    "a tuple of 5": (lambda: tuple(range(5)), "a tuple of 5", "(model, dataloader[, loss_fn[, optimizer]])"),
    "model is a class": (lambda: {**parts(), "model": nn.Linear}, "model is of type type", "return a mapping"),
    "a function for data": (lambda: {**parts(), "dataloader": batches}, "cannot be iterated", "return a mapping"),
    "a dataset": (
        lambda: {**parts(), "dataloader": TensorDataset(torch.ones(3))},
        "dataloader is a Dataset",
        "DataLoader(dataset, batch_size=32)",
    ),
    "misspelt": (lambda: {**parts(), "optimiser": 1, "optimizer": 1} and {"modle": 1}, "'modle'", "'model'"),
    "misspelt optimizer": (
        lambda: {"optimiser" if key == "optimizer" else key: value for key, value in parts().items()},
        "'optimiser'",
        "did you mean 'optimizer'?",
    ),
    "misspelt attribute": (
        lambda: SimpleNamespace(model=nn.Linear(1, 1), dataloader=[], trainning_step=len),
        "'trainning_step'",
        "did you mean 'training_step'?",
    ),
    "optimizer is a class": (lambda: {**parts(), "optimizer": torch.optim.SGD}, "optimizer is of type type", "return"),
    "scheduler without step": (lambda: {**parts(), "scheduler": 0.1}, "scheduler is of type float", "return"),
    "loss_fn is a number": (lambda: {**parts(), "loss_fn": 3}, "loss_fn is of type int", "return"),
    "training_step is text": (lambda: {**parts(), "training_step": "x"}, "training_step is of type str", "return"),
    "no parameters": (lambda: (nn.ReLU(), []), "no trainable parameter", "requires_grad_(True)"),
    "all frozen": (
        lambda: (nn.Linear(1, 1).requires_grad_(False), []),
        "all 2 have requires_grad=False",
        "requires_grad_(True)",
    ),
    "lazy": (lambda: (nn.LazyLinear(1), []), "weight has no shape yet", "call model(inputs) once"),
    "LBFGS": (
        lambda: {**(made := parts()), "optimizer": torch.optim.LBFGS(made["model"].parameters())},
        "LBFGS",
        "--optimizer sgd",
    ),
    "batches of three with loss_fn": (
        lambda: (nn.Linear(3, 1), [(torch.ones(2, 3),) * 3], nn.MSELoss()),
        "tuple of 3",
        "training_step(model, batch)",
    ),
    "neither loss_fn nor training_step": (
        lambda: (nn.Linear(3, 1), batches(1)),
        "neither loss_fn nor training_step",
        "return a mapping",
    ),
    "an empty dataloader": (lambda: (nn.Linear(3, 1), [], nn.MSELoss()), "the dataloader is empty", "drop_last"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_trained_is_refused(profile: Profile, case: str) -> None:
    build, message, hint = REFUSED[case]
    error = refusal(lambda: profile(build))
    assert message in error.message
    assert hint in error.hint


def test_lbfgs_can_be_replaced(profile: Profile) -> None:
    build = REFUSED["LBFGS"][0]
    assert profile(build, optimizer="sgd", lr=0.01)[0].run.optimizer == "SGD"


def test_a_model_on_the_meta_device_is_refused(profile: Profile) -> None:
    with pytest.raises(TargetError, match="cannot be moved to cpu"):
        profile(lambda: (nn.Linear(3, 1, device="meta"), batches(1), nn.MSELoss()), device="cpu")


def test_an_optimizer_that_hides_its_steps_is_no_silent_pass(profile: Profile) -> None:
    class Wrapper(torch.optim.Optimizer):
        def __init__(self, inner: torch.optim.Optimizer) -> None:
            self.inner, self.param_groups, self.state = inner, inner.param_groups, inner.state

        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            self.inner.step()

        def zero_grad(self, set_to_none: bool = True) -> None:
            self.inner.zero_grad(set_to_none)

    error = refusal(lambda: profile(lambda: {**(made := parts()), "optimizer": Wrapper(made["optimizer"])}))
    assert "Wrapper does not call torch's optimizer hooks" in error.message
