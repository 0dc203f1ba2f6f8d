"""Faults after the model: the loss is a mean over nothing, or takes the log of what was excluded."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, ctc_loss, log_softmax, mse_loss, one_hot

from tests.nan_corpus.corpus import case

IGNORED = -100


@case(phase="loss", op="aten::nll_loss_forward", cause="every-label-ignored", step=2)
def every_label_ignored() -> dict[str, Any]:
    class LanguageModel(nn.Module):
        def __init__(self, vocabulary: int) -> None:
            super().__init__()
            self.embedding = nn.Embedding(vocabulary, 8)
            self.head = nn.Linear(8, vocabulary)

        def forward(self, tokens: Tensor) -> Tensor:
            logits: Tensor = self.head(self.embedding(tokens))
            return logits

    def training_step(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        logits = model(batch["input_ids"])
        return cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), ignore_index=IGNORED)  # origin

    def prompts(answered: int) -> dict[str, Tensor]:
        tokens = torch.randint(0, 12, (3, 6))
        labels = tokens.clone()
        labels[:, answered:] = IGNORED
        return {"input_ids": tokens, "labels": labels}

    model = LanguageModel(12)
    adamw = torch.optim.AdamW(model.parameters())
    batches = [prompts(4), prompts(2), prompts(0), prompts(3)]
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": adamw}


@case(phase="loss", op="aten::nll_loss_forward", cause="every-label-ignored", micro_batch=1, settings={"accumulate": 2})
def labels_ignored_in_one_micro_batch() -> dict[str, Any]:
    def training_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, y = batch
        logits = model(x)
        return cross_entropy(logits, y)  # origin

    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    labels = [torch.tensor([0, 2, IGNORED, 1]), torch.full((4,), IGNORED)]
    batches = [(torch.randn(4, 4), y) for y in labels]
    sgd = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": sgd}


@case(phase="loss", op="aten::nll_loss2d_forward", cause="every-label-ignored", step=1)
def segmentation_of_unlabelled_images() -> dict[str, Any]:
    class Segmenter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 3, 3, padding=1)
            self.criterion = nn.CrossEntropyLoss(ignore_index=255)

        def forward(self, image: Tensor) -> Tensor:
            logits: Tensor = self.conv(image)
            return logits

    def training_step(model: Segmenter, batch: tuple[Tensor, Tensor]) -> Tensor:
        image, labels = batch
        loss: Tensor = model.criterion(model(image), labels)  # origin
        return loss

    model = Segmenter()
    batches = [(torch.rand(2, 1, 4, 4), torch.randint(0, 3, (2, 4, 4))) for _ in range(2)]
    batches[1][1][:] = 255
    adam = torch.optim.Adam(model.parameters())
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": adam}


@case(phase="loss", op="aten::nll_loss_forward", cause="class-weights-zero", step=1)
def only_background_in_the_batch() -> dict[str, Any]:
    class_weights = torch.tensor([0.0, 1.0, 2.5])

    def training_step(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        logits = model(batch["features"])
        return cross_entropy(logits, batch["label"], weight=class_weights)  # origin

    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))
    labels = [torch.tensor([0, 1, 2, 0]), torch.tensor([0, 0, 0, 0]), torch.tensor([2, 1, 0, 1])]
    batches = [{"features": torch.randn(4, 5), "label": label} for label in labels]
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": sgd}


@case(phase="loss", op="aten::mean", cause="mean-of-empty", step=1)
def mean_over_no_confident_sample() -> dict[str, Any]:
    def training_step(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        x, y, confidence = batch
        errors = mse_loss(model(x), y, reduction="none")
        return errors[confidence > 0.5].mean()  # origin

    model = nn.Linear(3, 1)
    confidences = (torch.tensor([0.9, 0.2, 0.7, 0.6]), torch.tensor([0.1, 0.2, 0.3, 0.4]))
    batches = [(torch.randn(4, 3), torch.randn(4, 1), confidence) for confidence in confidences]
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": sgd}


@case(phase="loss", op=("aten::mse_loss", "aten::mean"), cause="mean-of-empty", step=1)
def regression_on_no_box() -> dict[str, Any]:
    class Detector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = nn.Linear(6, 8)
            self.score, self.box = nn.Linear(8, 2), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            features = torch.relu(self.backbone(x))
            return self.score(features), self.box(features)

    def training_step(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        scores, boxes = model(batch["anchors"])
        positive = batch["label"] == 1
        box_loss = mse_loss(boxes[positive], batch["box"][positive])  # origin
        return cross_entropy(scores, batch["label"]) + box_loss

    def images(*label: int) -> dict[str, Tensor]:
        return {"anchors": torch.randn(4, 6), "box": torch.rand(4, 4), "label": torch.tensor(label)}

    model = Detector()
    adam = torch.optim.Adam(model.parameters())
    batches = [images(1, 0, 1, 0), images(0, 0, 0, 0)]
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": adam}


@case(phase="loss", op="aten::div", cause="masked-mean-of-empty")
def masked_mean_of_no_token() -> dict[str, Any]:
    def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
        return (values * mask).sum() / mask.sum()  # origin

    def training_step(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        logits = model(batch["x"])
        losses = cross_entropy(logits.flatten(0, 1), batch["y"].flatten(), reduction="none")
        return masked_mean(losses, batch["mask"].flatten())

    model = nn.Linear(4, 3)
    batches = [{"x": torch.randn(2, 5, 4), "y": torch.randint(0, 3, (2, 5)), "mask": torch.zeros(2, 5)}]
    adam = torch.optim.Adam(model.parameters())
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": adam}


@case(phase="forward", op="aten::div", cause="masked-mean-of-empty", step=1, samples=(1,))
def pooling_over_an_empty_sentence() -> dict[str, Any]:
    class SentenceEncoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.out = nn.Embedding(9, 6), nn.Linear(6, 2)

        def forward(self, tokens: Tensor, length: Tensor) -> Tensor:
            mask = (torch.arange(tokens.shape[1]) < length[:, None]).float()[..., None]
            pooled = (self.embedding(tokens) * mask).sum(1) / mask.sum(1)  # origin
            logits: Tensor = self.out(pooled)
            return logits

    def training_step(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        tokens, length, label = batch
        return cross_entropy(model(tokens, length), label)

    model = SentenceEncoder()
    lengths = (torch.tensor([4, 2, 1]), torch.tensor([3, 0, 4]))
    batches = [(torch.randint(0, 9, (3, 4)), length, torch.randint(0, 2, (3,))) for length in lengths]
    adam = torch.optim.Adam(model.parameters())
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": adam}


@case(phase="loss", op=("aten::_ctc_loss", "aten::ctc_loss"), kind="inf", cause="ctc-target-too-long", samples=(2,))
def transcript_longer_than_the_audio() -> dict[str, Any]:
    class Recogniser(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.letters = nn.GRU(3, 8, batch_first=True), nn.Linear(8, 5)

        def forward(self, audio: Tensor) -> Tensor:
            return log_softmax(self.letters(self.rnn(audio)[0]), -1)

    def training_step(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        log_probs = model(batch["audio"]).transpose(0, 1)
        return ctc_loss(log_probs, batch["text"], batch["frames"], batch["letters"])  # origin

    model = Recogniser()
    batch = {
        "audio": torch.randn(4, 6, 3),
        "frames": torch.tensor([6, 6, 3, 5]),
        "text": torch.randint(1, 5, (4, 4)),
        "letters": torch.tensor([2, 3, 4, 1]),
    }
    adam = torch.optim.Adam(model.parameters())
    return {"model": model, "dataloader": [batch], "training_step": training_step, "optimizer": adam}


@case(
    phase="loss",
    op=("aten::sum", "aten::_log_softmax", "aten::masked_fill"),
    kind="inf",
    cause="label-smoothing-over-inf",
    samples=(0, 3),
)
def label_smoothing_over_illegal_moves() -> dict[str, Any]:
    def training_step(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        board, illegal, move = batch
        logits = model(board)
        return cross_entropy(logits.masked_fill(illegal, -torch.inf), move, label_smoothing=0.1)  # origin

    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    illegal = torch.zeros(5, 4, dtype=torch.bool)
    illegal[[0, 3], [1, 2]] = True
    batches = [(torch.randn(5, 6), illegal, torch.tensor([0, 1, 2, 3, 0]))]
    adam = torch.optim.Adam(model.parameters())
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": adam}


@case(phase="loss", op="aten::mul", cause="label-smoothing-over-inf", samples=(1, 4))
def smoothed_targets_by_hand() -> dict[str, Any]:
    def training_step(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        logits = model(batch["state"])
        log_probs = log_softmax(logits.masked_fill(~batch["legal"], -torch.inf), -1)
        legal = batch["legal"].float()
        smooth = 0.9 * one_hot(batch["move"], 4) + 0.1 * legal / legal.sum(-1, keepdim=True)
        return -(smooth * log_probs).sum(-1).mean()  # origin

    legal = torch.ones(6, 4, dtype=torch.bool)
    legal[[1, 4], [3, 0]] = False
    model = nn.Linear(5, 4)
    batches = [{"state": torch.randn(6, 5), "legal": legal, "move": torch.tensor([0, 1, 2, 3, 1, 2])}]
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": sgd}
