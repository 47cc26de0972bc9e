"""Classify answers as unsafe or toxic, where a classifier is configured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from evaluation.answers.entries import ANSWERS, UNSAFE, UnsafeEntry
from evaluation.job.config import SafetyConfig
from evaluation.job.journal import Journal
from infra.errors import UserError

if TYPE_CHECKING:
    from feedback.snapshots.gate_items import GateItem


def classify_answers(
    config: SafetyConfig,
    items: Sequence[GateItem],
    journal: Journal,
    versions: Sequence[str],
    on_phase: Callable[[str], None],
) -> None:
    """Append the probability of the unsafe labels for every answer that has none.

    Raises:
        UserError: the classifier cannot be loaded, or does not know the labels.
    """
    answers = {
        (version, item.item_id): entry.answer
        for version in versions
        for item in items
        if (entry := journal.get(ANSWERS, version, item.item_id)) is not None
        and journal.get(UNSAFE, version, item.item_id) is None
    }
    if not answers:
        return
    on_phase("looking for unsafe answers")
    classifier = Classifier(config)
    keys = list(answers)
    for start in range(0, len(keys), config.batch_size):
        piece = keys[start : start + config.batch_size]
        values = classifier.unsafe([answers[key] for key in piece])
        journal.append(UNSAFE, [(key, UnsafeEntry(value=value)) for key, value in zip(piece, values, strict=True)])


class Classifier:
    """A sequence classifier in transformers' format, safetensors only.

    Raises:
        UserError: it is not there, cannot be loaded, or lacks a label that the config calls unsafe.
    """

    def __init__(self, config: SafetyConfig) -> None:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        from training.hardware import device_name

        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(config.model)
            self._model: Any = AutoModelForSequenceClassification.from_pretrained(
                config.model, use_safetensors=True, trust_remote_code=False
            ).eval()
        except (OSError, ValueError) as error:
            raise UserError(
                f"the safety classifier {config.model} cannot be loaded ({str(error).splitlines()[0]}); expected a "
                "folder or a hub name of a sequence classifier with safetensors (evaluation.safety.model)"
            ) from error
        labels: dict[int, str] = self._model.config.id2label
        unknown = sorted(set(config.unsafe_labels) - set(labels.values()))
        if unknown:
            raise UserError(
                f"the safety classifier {config.model} has no label {', '.join(unknown)}; it has "
                f"{', '.join(labels.values())} (evaluation.safety.unsafe_labels)"
            )
        self._model.to(device_name())
        self._unsafe = [index for index, label in labels.items() if label in config.unsafe_labels]
        self._limit = min(int(getattr(self._model.config, "max_position_embeddings", 512) or 512), 512)
        self._many = self._model.config.problem_type == "multi_label_classification"

    def unsafe(self, texts: Sequence[str]) -> list[float]:
        """Compute the probability that each text is unsafe: of any label, or their sum where labels are exclusive."""
        import torch

        inputs = self._tokenizer(
            [text or " " for text in texts], return_tensors="pt", padding=True, truncation=True, max_length=self._limit
        )
        inputs.pop("token_type_ids", None)
        with torch.inference_mode():
            logits = self._model(**inputs.to(self._model.device)).logits.float()
        if self._many or logits.shape[1] == 1:
            chances = torch.sigmoid(logits)[:, self._unsafe].amax(dim=1)
        else:
            chances = torch.softmax(logits, dim=1)[:, self._unsafe].sum(dim=1)
        return [round(float(value), 6) for value in chances]
