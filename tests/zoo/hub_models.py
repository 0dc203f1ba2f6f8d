"""Healthy models of the transformers library: its configurations, small, as the library initialises them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tests.zoo.data import VOCABULARY, digit_images, loader, make_optimizer, tokens
from tests.zoo.specimen import healthy

NEEDS = "transformers"


def image_model(model: nn.Module, size: int, lr: float = 1e-3) -> dict[str, Any]:
    """Recognise digits; the library computes the loss."""

    def training_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return model(pixel_values=batch[0], labels=batch[1]).loss

    data, adamw = loader(*digit_images(size, 3)), make_optimizer(model, "adamw", lr)
    return {"model": model, "dataloader": data, "training_step": training_step, "optimizer": adamw}


def language_model(model: nn.Module, length: int = 32, lr: float = 1e-3, batch: int = 16) -> dict[str, Any]:
    """Predict the next character; the library shifts the labels."""

    def training_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return model(input_ids=batch[0], labels=batch[0]).loss

    data, adamw = loader(*tokens(length), batch), make_optimizer(model, "adamw", lr)
    return {"model": model, "dataloader": data, "training_step": training_step, "optimizer": adamw}


def masked_model(model: nn.Module, mask: int) -> dict[str, Any]:
    """Restore the 15 % of characters that are hidden. Devlin et al., 2019."""

    def training_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        hidden = torch.rand(batch[0].shape) < 0.15
        labels = batch[0].masked_fill(~hidden, -100)
        return model(input_ids=batch[0].masked_fill(hidden, mask), labels=labels).loss

    data, adamw = loader(*tokens(32)), make_optimizer(model, "adamw", 1e-3)
    return {"model": model, "dataloader": data, "training_step": training_step, "optimizer": adamw}


def gpt2(layers: int, width: int = 64, **changes: Any) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    ends = {"bos_token_id": 0, "eos_token_id": 0}
    sizes = {"vocab_size": VOCABULARY, "n_positions": 32, "n_embd": width, "n_layer": layers, "n_head": 4}
    return GPT2LMHeadModel(GPT2Config(use_cache=False, **sizes, **ends, **changes))


@healthy(needs=NEEDS)
def hf_gpt2_12() -> dict[str, Any]:
    return language_model(gpt2(12), lr=3e-4)


@healthy(needs=NEEDS)
def hf_gpt2_24() -> dict[str, Any]:
    return language_model(gpt2(24), lr=3e-4, batch=8)


def encoder(layers: int) -> dict[str, int]:
    """Sizes of a small BERT: the characters, a mask and a padding."""
    sizes = {"hidden_size": 64, "num_hidden_layers": layers, "num_attention_heads": 4, "intermediate_size": 128}
    return {
        "vocab_size": VOCABULARY + 2,
        "pad_token_id": VOCABULARY + 1,
        "max_position_embeddings": 40 + VOCABULARY,
        **sizes,
    }


@healthy(needs=NEEDS, quick=True)
def hf_bert_6() -> dict[str, Any]:
    from transformers import BertConfig, BertForMaskedLM

    return masked_model(BertForMaskedLM(BertConfig(**encoder(6))), VOCABULARY)


@healthy(needs=NEEDS)
def hf_roberta_12() -> dict[str, Any]:
    from transformers import RobertaConfig, RobertaForMaskedLM

    return masked_model(RobertaForMaskedLM(RobertaConfig(**encoder(12))), VOCABULARY)


@healthy(needs=NEEDS, quick=True)
def hf_llama_6() -> dict[str, Any]:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 6}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32}
    return language_model(LlamaForCausalLM(LlamaConfig(use_cache=False, **sizes, **heads)))


@healthy(needs=NEEDS)
def hf_mixtral() -> dict[str, Any]:
    from transformers import MixtralConfig, MixtralForCausalLM

    sizes = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 4, "num_local_experts": 4}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32}
    config = MixtralConfig(vocab_size=VOCABULARY, use_cache=False, output_router_logits=True, **sizes, **heads)
    return language_model(MixtralForCausalLM(config))


@healthy(needs=NEEDS)
def hf_mamba() -> dict[str, Any]:
    from transformers import MambaConfig, MambaForCausalLM

    config = MambaConfig(vocab_size=VOCABULARY, hidden_size=32, state_size=8, num_hidden_layers=4, use_cache=False)
    return language_model(MambaForCausalLM(config), 16)


@healthy(needs=NEEDS)
def hf_t5() -> dict[str, Any]:
    """Restore the text from its reverse."""
    from transformers import T5Config, T5ForConditionalGeneration

    sizes = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 3, "num_heads": 4}
    config = T5Config(vocab_size=VOCABULARY, decoder_start_token_id=0, pad_token_id=0, use_cache=False, **sizes)
    model = T5ForConditionalGeneration(config)

    def training_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return model(input_ids=batch[0].flip(1), labels=batch[0]).loss

    data, adamw = loader(*tokens(16)), make_optimizer(model, "adamw", 1e-3)
    return {"model": model, "dataloader": data, "training_step": training_step, "optimizer": adamw}


@healthy(needs=NEEDS)
def hf_vit() -> dict[str, Any]:
    from transformers import ViTConfig, ViTForImageClassification

    sizes = {"hidden_size": 48, "num_hidden_layers": 6, "num_attention_heads": 4, "intermediate_size": 96}
    return image_model(ViTForImageClassification(ViTConfig(**sizes, image_size=8, patch_size=2, num_labels=10)), 8)


@healthy(needs=NEEDS)
def hf_swin() -> dict[str, Any]:
    from transformers import SwinConfig, SwinForImageClassification

    sizes = {"embed_dim": 24, "depths": [2, 2, 2], "num_heads": [2, 4, 8], "window_size": 4}
    return image_model(SwinForImageClassification(SwinConfig(**sizes, image_size=32, patch_size=2, num_labels=10)), 32)


@healthy(needs=NEEDS)
def hf_convnext() -> dict[str, Any]:
    from transformers import ConvNextConfig, ConvNextForImageClassification

    sizes = {"hidden_sizes": [16, 32], "depths": [3, 5], "num_stages": 2}
    config = ConvNextConfig(**sizes, patch_size=2, image_size=16, num_labels=10)
    return image_model(ConvNextForImageClassification(config), 16)


@healthy(needs=NEEDS)
def hf_resnet() -> dict[str, Any]:
    from transformers import ResNetConfig, ResNetForImageClassification

    sizes = {"embedding_size": 16, "hidden_sizes": [32, 64], "depths": [2, 2]}
    return image_model(ResNetForImageClassification(ResNetConfig(**sizes, num_labels=10)), 32)


@healthy(needs=NEEDS)
def hf_clip() -> dict[str, Any]:
    """CLIP: digits and their names, two towers, contrastive loss. Radford et al., 2021."""
    from transformers import CLIPConfig, CLIPModel

    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
    text = {**tower, "vocab_size": 16, "max_position_embeddings": 4, "eos_token_id": 15, "bos_token_id": 14}
    vision = {**tower, "image_size": 8, "patch_size": 2}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=32))

    def training_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        names = torch.stack([torch.full_like(labels, 14), labels, torch.full_like(labels, 15)], 1)
        return model(input_ids=names, pixel_values=images, return_loss=True).loss

    data, adamw = loader(*digit_images(8, 3), 10), make_optimizer(model, "adamw", 3e-4)
    return {"model": model, "dataloader": data, "training_step": training_step, "optimizer": adamw}
