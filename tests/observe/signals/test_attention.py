"""The sharpness of attention, against softmax in float64 worked out query by query."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from gradcheck_cli.observe.recorder import Recorder
from gradcheck_cli.records import RunInfo
from gradcheck_cli.signals import AttentionSignals

HIDDEN, SMALLEST = -math.inf, torch.finfo(torch.float32).min
LENGTH, WIDTH, HEADS = 12, 16, 4


def measured(model: nn.Module, *inputs: Any, **named: Any) -> AttentionSignals:
    """What one training step of the model records."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with Recorder(model, optimizer) as recorder:
        output = model(*inputs, **named)
        loss = output if isinstance(output, Tensor) else output[0]
        loss.float().sum().backward()
        optimizer.step()
    signals = recorder.recording(RunInfo("train.py:build", "cpu", "fp32", 0)).signals
    assert signals is not None
    return signals.attention


def expected(logits: Tensor, seen: Tensor, products: Tensor | None = None) -> tuple[float, float]:
    """Mean deviation and median entropy of logits and seen (..., queries, keys), query by query in float64."""
    keys = logits.shape[-1]
    rows = logits.detach().double().reshape(-1, keys).numpy()
    masks = seen.expand(logits.shape).reshape(-1, keys).numpy()
    spread = rows if products is None else products.detach().double().reshape(-1, keys).numpy()
    deviations, entropies = [], []
    for row, own, mask in zip(rows, spread, masks, strict=True):
        if mask.sum() > 1:
            weights = np.exp(row[mask] - row[mask].max())
            weights /= weights.sum()
            entropies.append(-(weights * np.log(np.maximum(weights, 1e-300))).sum() / np.log(mask.sum()))
            deviations.append(own[mask].std())
    return float(np.mean(deviations)), float(np.sort(entropies)[(len(entropies) - 1) // 2])


def assert_like(signals: AttentionSignals, deviation: float, entropy: float, rel: float = 1e-4) -> None:
    assert len(signals.sites) == 1
    assert signals.logit_std[0, 0] == pytest.approx(deviation, rel=rel)
    assert signals.entropy[0, 0] == pytest.approx(entropy, rel=rel)


class Products(nn.Module):
    """scaled_dot_product_attention of parameters."""

    def __init__(self, query: tuple[int, ...], key: tuple[int, ...], sharpness: float = 3.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.query = nn.Parameter(sharpness * torch.randn(query))
        self.key, self.value = nn.Parameter(torch.randn(key)), nn.Parameter(torch.randn(key))

    def forward(self, **settings: Any) -> Tensor:
        return functional.scaled_dot_product_attention(self.query, self.key, self.value, **settings)

    def logits(self, scale: float | None = None) -> Tensor:
        key = self.key.double()
        if key.dim() > 3 and 1 < key.shape[-3] < self.query.shape[-3]:
            key = torch.cat([key[:, h // (self.query.shape[1] // key.shape[1]), None] for h in range(HEADS)], 1)
        scale = self.query.shape[-1] ** -0.5 if scale is None else scale
        return self.query.double() @ key.transpose(-1, -2) * scale


EVERY = torch.ones(1, dtype=torch.bool)
TRIANGLE = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()
SHAPE = (2, HEADS, LENGTH, 8)


@pytest.mark.parametrize(
    ("query", "key"),
    [
        (SHAPE, SHAPE),
        ((3, LENGTH, 8), (3, LENGTH, 8)),
        (SHAPE, (2, HEADS, 7, 8)),
        ((1, *SHAPE[1:]), SHAPE),
        (SHAPE, (2, 1, LENGTH, 8)),
        ((2, 1, LENGTH, 8), SHAPE),
    ],
    ids=["4d", "3d", "cross", "one query for all examples", "one key for all heads", "one query for all heads"],
)
def test_products_of_any_shape(query: tuple[int, ...], key: tuple[int, ...]) -> None:
    model = Products(query, key)
    assert_like(measured(model), *expected(model.logits(), EVERY))
    assert_like(measured(model, scale=0.9), *expected(model.logits(0.9), EVERY))


def test_grouped_queries() -> None:
    model = Products(SHAPE, (2, 2, LENGTH, 8))
    assert_like(measured(model, enable_gqa=True), *expected(model.logits(), EVERY))


def test_half_precision() -> None:
    model = Products(SHAPE, SHAPE).bfloat16()
    assert_like(measured(model), *expected(model.logits(), EVERY))


def test_causal_queries_see_only_what_came_before() -> None:
    model = Products(SHAPE, SHAPE)
    assert_like(measured(model, is_causal=True), *expected(model.logits(), TRIANGLE))


def random_mask(*shape: int) -> Tensor:
    """Each query sees about half of the keys, and itself."""
    return (torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.5) | torch.eye(shape[-1]).bool()


@pytest.mark.parametrize("hidden", [HIDDEN, -1e9, -1e4, -100.0, SMALLEST])
@pytest.mark.parametrize("shape", [(LENGTH, LENGTH), (2, 1, LENGTH, LENGTH), (HEADS, LENGTH, LENGTH)], ids=str)
def test_masks_hide_keys_however_they_are_written(shape: tuple[int, ...], hidden: float) -> None:
    seen = random_mask(*shape)
    model = Products(SHAPE, SHAPE)
    wanted = expected(model.logits(), seen)
    assert_like(measured(model, attn_mask=torch.zeros(shape).masked_fill(~seen, hidden)), *wanted)
    assert_like(measured(model, attn_mask=seen), *wanted)


@pytest.mark.parametrize("hidden", [HIDDEN, -1e9, SMALLEST])
def test_a_query_that_sees_nothing_does_not_count(hidden: float) -> None:
    seen = torch.arange(LENGTH)[:, None].expand(LENGTH, LENGTH) > 4
    model = Products(SHAPE, SHAPE)
    wanted = expected(model.logits(), seen)
    assert_like(measured(model, attn_mask=torch.zeros(LENGTH, LENGTH).masked_fill(~seen, hidden)), *wanted)


def test_a_mask_for_all_queries_of_an_example() -> None:
    seen = torch.arange(LENGTH) < torch.tensor([LENGTH, 7])[:, None, None, None]
    model = Products(SHAPE, SHAPE)
    assert_like(measured(model, attn_mask=seen), *expected(model.logits(), seen))


def test_a_bias_is_in_the_weights_but_not_in_the_spread() -> None:
    model = Products(SHAPE, SHAPE, sharpness=1.0)
    bias = -0.7 * (torch.arange(LENGTH)[:, None] - torch.arange(LENGTH)).abs().float()
    logits = model.logits()
    assert_like(measured(model, attn_mask=bias), *expected(logits + bias, EVERY, products=logits))


class Softmax(nn.Module):
    """Attention written by hand, a mask added to its logits."""

    def __init__(self, function: Callable[..., Tensor], sharpness: float = 1.0) -> None:
        super().__init__()
        self.function = function
        torch.manual_seed(0)
        self.logits = nn.Parameter(sharpness * torch.randn(2, HEADS, LENGTH, LENGTH))

    def forward(self, mask: Tensor) -> Tensor:
        return self.function(self.logits + mask, dim=-1)[..., 0]


@pytest.mark.parametrize("function", [torch.softmax, functional.softmax, Tensor.softmax])
@pytest.mark.parametrize("hidden", [HIDDEN, -1e9, -1e4, -100.0])
@pytest.mark.parametrize("sharpness", [1.0, 8.0])
def test_attention_written_by_hand(function: Callable[..., Tensor], hidden: float, sharpness: float) -> None:
    model = Softmax(function, sharpness)
    windows = (torch.arange(LENGTH) < 4) == (torch.arange(LENGTH)[:, None] < 4)
    for seen in (TRIANGLE, windows):
        if hidden == -100 and seen is TRIANGLE:
            continue  # its first query sees one key, which a sharp one would, too
        added = torch.zeros(LENGTH, LENGTH).masked_fill(~seen, hidden)
        assert_like(measured(model, added), *expected(model.logits, seen))


@pytest.mark.parametrize("sharpness", [30.0, 1000.0])
def test_very_sharp_logits_are_not_taken_for_masked_ones(sharpness: float) -> None:
    model = Softmax(torch.softmax, sharpness)
    signals = measured(model, torch.zeros(()))
    deviation, entropy = expected(model.logits, EVERY)
    assert signals.logit_std[0, 0] == pytest.approx(deviation, rel=0.1)
    assert signals.entropy[0, 0] == pytest.approx(entropy, abs=0.05)


def test_long_sequences_are_sampled() -> None:
    model = Products((4, 2, 1000, 8), (4, 2, 1000, 8))
    deviation, entropy = expected(model.logits(), EVERY)
    signals = measured(model)
    assert signals.logit_std[0, 0] == pytest.approx(deviation, rel=0.05)
    assert signals.entropy[0, 0] == pytest.approx(entropy, rel=0.05)


def multihead_logits(layer: nn.MultiheadAttention, x: Tensor) -> Tensor:
    """(examples, heads, queries, keys) float64, of x (examples, tokens, features)."""
    assert layer.in_proj_weight is not None
    projected = x.double() @ layer.in_proj_weight.double().T + layer.in_proj_bias.double()
    query, key, _ = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in projected.chunk(3, -1))
    return query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("mask", ["none", "causal", "padding"])
def test_torchs_multihead_attention(need_weights: bool, batch_first: bool, mask: str) -> None:
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(WIDTH, HEADS, batch_first=batch_first)
    x = 3 * torch.randn(2, LENGTH, WIDTH)
    padded = torch.arange(LENGTH) >= torch.tensor([[LENGTH], [7]])
    masks = {"none": {}, "causal": {"attn_mask": ~TRIANGLE}, "padding": {"key_padding_mask": padded}}
    seen = {"none": EVERY, "causal": TRIANGLE, "padding": ~padded[:, None, None]}[mask]
    given = x if batch_first else x.transpose(0, 1)
    signals = measured(layer, given, given, given, need_weights=need_weights, **masks[mask])
    assert_like(signals, *expected(multihead_logits(layer, x), seen))


def test_an_encoder_layer_names_its_attention() -> None:
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 32, batch_first=True)
    assert [site.module for site in measured(layer, torch.randn(2, LENGTH, WIDTH)).sites] == ["self_attn"]


def test_softmax_over_classes_is_no_attention() -> None:
    model = nn.Sequential(nn.Linear(8, 5), nn.Softmax(-1))
    assert measured(model, torch.randn(4, 8)).sites == ()
    assert measured(model, torch.randn(4, 3, 8)).sites == ()


def gpt2(implementation: str) -> nn.Module:
    from transformers import GPT2Config, GPT2Model

    size = {"vocab_size": 50, "n_positions": LENGTH, "n_embd": WIDTH, "n_layer": 1, "n_head": HEADS}
    rates = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
    return GPT2Model(GPT2Config(**size, **rates, attn_implementation=implementation, initializer_range=0.5))


def bert(implementation: str) -> nn.Module:
    from transformers import BertConfig, BertModel

    size = {"vocab_size": 50, "hidden_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": HEADS}
    rates = {"attention_probs_dropout_prob": 0.0, "hidden_dropout_prob": 0.0, "intermediate_size": 32}
    return BertModel(BertConfig(**size, **rates, attn_implementation=implementation, initializer_range=0.5))


def llama(implementation: str) -> nn.Module:
    from transformers import LlamaConfig, LlamaModel

    size = {"vocab_size": 50, "hidden_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": HEADS}
    more = {"num_key_value_heads": 2, "intermediate_size": 32, "max_position_embeddings": LENGTH}
    return LlamaModel(LlamaConfig(**size, **more, attn_implementation=implementation, initializer_range=0.5))


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("make", [gpt2, bert, llama])
@pytest.mark.parametrize("padded", [False, True])
def test_transformers(make: Callable[[str], nn.Module], implementation: str, padded: bool) -> None:
    pytest.importorskip("transformers")
    torch.manual_seed(0)
    model = make("eager").double()
    numbers = torch.randint(50, (2, LENGTH))
    mask = (torch.arange(LENGTH) < torch.tensor([[LENGTH], [7]])).long() if padded else torch.ones_like(numbers)
    (weights,) = model(numbers, attention_mask=mask, output_attentions=True).attentions
    seen = mask.bool()[:, None, None] & (EVERY if make is bert else TRIANGLE)
    other = make(implementation)
    other.load_state_dict(model.state_dict())
    # The logarithm of a weight is its logit less a constant of its row.
    wanted = expected(weights.clamp(min=1e-300).log(), seen)
    assert_like(measured(other, input_ids=numbers, attention_mask=mask), *wanted, rel=1e-3)
