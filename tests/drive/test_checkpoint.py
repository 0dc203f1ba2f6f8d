"""--checkpoint loads weights before the first step, however they were saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradcheck_cli.errors import GradcheckError, TargetError
from tests.drive.conftest import Run

Profile = Callable[..., Run]
WEIGHT, BIAS = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([4.0])
BARE = {"weight": WEIGHT, "bias": BIAS}


def prefixed(prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in BARE.items()}


def loaded(profile: Profile, make: Callable[[], nn.Module] = lambda: nn.Linear(3, 1)) -> list[Tensor]:
    """The model's parameters at the end of a run without an optimizer, from the file `weights.pt`."""
    models: list[nn.Module] = []

    def build() -> tuple[Any, ...]:
        models.append(make())
        return models[0], [(torch.ones(2, 3), torch.ones(2, 1))], nn.MSELoss()

    profile(build, checkpoint="weights.pt", steps=1, eager=True)
    return list(models[0].parameters())


@pytest.mark.parametrize(
    "content",
    [
        BARE,
        {"model": BARE, "epoch": 3},
        {"state_dict": BARE, "optimizer": {"state": {}}},
        {"model_state_dict": BARE, "loss": 0.5},
        prefixed("module."),
        prefixed("_orig_mod."),
        {"state_dict": prefixed("module._orig_mod.")},
        {"model": prefixed("_orig_mod.module.")},
    ],
    ids=["bare", "model", "state_dict", "model_state_dict", "module.", "_orig_mod.", "both", "both, turned round"],
)
def test_weights_are_found(profile: Profile, content: Any) -> None:
    torch.save(content, "weights.pt")
    weight, bias = loaded(profile)
    assert torch.equal(weight, WEIGHT)
    assert torch.equal(bias, BIAS)


class Wrapper(nn.Module):
    """A model whose own attribute happens to be called `module`."""

    def __init__(self) -> None:
        super().__init__()
        self.module = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Any:
        return self.module(x)


@pytest.mark.parametrize("content", [BARE, prefixed("module."), prefixed("_orig_mod."), prefixed("_orig_mod.module.")])
@pytest.mark.parametrize("make", [Wrapper, lambda: torch.compile(nn.Linear(3, 1))], ids=["module", "compiled"])
def test_prefixes_may_be_the_models_own(profile: Profile, make: Callable[[], nn.Module], content: Any) -> None:
    torch.save(content, "weights.pt")
    weight, bias = loaded(profile, make)
    assert torch.equal(weight, WEIGHT)
    assert torch.equal(bias, BIAS)


def refusal(profile: Profile) -> GradcheckError:
    with pytest.raises(TargetError) as caught:
        loaded(profile)
    assert "weights.pt" in caught.value.message
    assert caught.value.hint
    return caught.value


def test_wrong_shapes_are_named(profile: Profile) -> None:
    torch.save({"weight": torch.ones(1, 4), "bias": BIAS}, "weights.pt")
    error = refusal(profile)
    assert "do not fit the model" in error.message
    assert "size mismatch for weight" in error.details


def test_missing_and_foreign_weights_are_named(profile: Profile) -> None:
    torch.save({"weight": WEIGHT, "head.weight": WEIGHT}, "weights.pt")
    details = refusal(profile).details
    assert "bias" in details
    assert "head.weight" in details


def test_a_missing_file(profile: Profile) -> None:
    assert "No such file" in refusal(profile).message


def test_a_file_that_is_no_checkpoint(profile: Profile) -> None:
    Path("weights.pt").write_text("hello")
    assert "is not a checkpoint of weights" in refusal(profile).message


def test_a_whole_model_is_not_loaded_because_that_would_run_its_code(profile: Profile) -> None:
    torch.save(nn.Linear(3, 1), "weights.pt")
    assert "state_dict" in refusal(profile).hint


@pytest.mark.parametrize("content", [[1, 2], {3: WEIGHT}, WEIGHT])
def test_a_file_without_a_state_dict(profile: Profile, content: Any) -> None:
    torch.save(content, "weights.pt")
    assert "holds no state dict" in refusal(profile).message


def test_a_relative_path_is_seen_from_where_gradcheck_was_started(
    profile: Profile, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(BARE, "weights.pt")
    (folder / "elsewhere").mkdir()

    def make() -> nn.Module:
        monkeypatch.chdir(folder / "elsewhere")
        return nn.Linear(3, 1)

    assert torch.equal(loaded(profile, make)[0], WEIGHT)
