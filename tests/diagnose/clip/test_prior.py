from __future__ import annotations

import numpy as np
import pytest

from gradcheck_cli.diagnose.clip.prior import recall_practice
from gradcheck_cli.records import ModuleInfo

NORMS = np.arange(1.0, 101.0) / 10


def modules(*types: str) -> list[ModuleInfo]:
    return [ModuleInfo(f"layer{index}", kind) for index, kind in enumerate(types)]


@pytest.mark.parametrize(
    ("types", "kind", "low", "high"),
    [
        (["Sequential", "TransformerEncoderLayer", "Linear"], "transformer", 1, 1),
        (["MultiheadAttention"], "transformer", 1, 1),
        (["GPT", "Embedding"], "transformer", 1, 1),
        (["LlamaForCausalLM"], "transformer", 1, 1),
        (["VisionTransformer", "Conv2d"], "transformer", 1, 1),
        (["Embedding", "LSTM", "Linear"], "recurrent network", 0.5, 5),
        (["GRUCell"], "recurrent network", 0.5, 5),
        (["Conv1d", "LSTM"], "recurrent network", 0.5, 5),
        (["Conv2d", "BatchNorm2d"], "convolutional network", 1, 10),
        (["MaskRCNN", "Conv2d"], "convolutional network", 1, 10),
        (["ActorCritic", "Conv2d", "LSTM"], "reinforcement learning", 0.5, 0.5),
        (["DQN", "Linear"], "reinforcement learning", 0.5, 0.5),
    ],
)
def test_a_model_is_known_by_its_modules(types: list[str], kind: str, low: float, high: float) -> None:
    prior = recall_practice(modules(*types), None, NORMS)
    assert prior is not None
    assert (prior.kind, prior.low, prior.high) == (kind, low, high)
    assert prior.clips_rarely is (kind == "convolutional network")


@pytest.mark.parametrize("types", [[], ["Sequential", "Linear", "ReLU"], ["FactorizedLinear", "Interactor"]])
def test_what_is_of_no_known_kind_has_no_practice(types: list[str]) -> None:
    assert recall_practice(modules(*types), 1.0, NORMS) is None


@pytest.mark.parametrize(
    ("max_norm", "sentence"),
    [
        (0.16, "0.5 would clip 95 % of these steps"),
        (0.17, ""),
        (2.0, ""),
        (15.0, ""),
        (15.1, "5 would clip 50 % of these steps"),
    ],
)
def test_a_value_three_times_outside_the_usual_ones_disagrees(max_norm: float, sentence: str) -> None:
    """It then says how many of these steps the nearest of the usual values, 0.5 to 5, would clip."""
    prior = recall_practice(modules("LSTM"), max_norm, NORMS)
    assert prior is not None
    assert prior.agrees is (sentence == "")
    assert prior.sentence == sentence


def test_without_a_value_there_is_nothing_to_compare() -> None:
    prior = recall_practice(modules("LSTM"), None, np.zeros(0))
    assert prior is not None
    assert prior.agrees is None
    assert prior.sentence == ""
