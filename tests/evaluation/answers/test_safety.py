"""A real (tiny, random) sequence classifier looks at answers; what cannot be used is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluation.answers.entries import ANSWERS, UNSAFE, AnswerEntry
from evaluation.answers.safety import Classifier, classify_answers
from evaluation.job.config import SafetyConfig
from evaluation.job.items import read_items
from evaluation.job.journal import Journal
from infra.errors import UserError
from tests.evaluation.night import write_items


@pytest.fixture(scope="module")
def classifier(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from transformers import AutoConfig, AutoTokenizer, LlamaForSequenceClassification

    folder = tmp_path_factory.mktemp("classifier")
    config = AutoConfig.from_pretrained(tiny_base)
    config.num_labels, config.id2label, config.label2id = 2, {0: "fine", 1: "toxic"}, {"fine": 0, "toxic": 1}
    torch.manual_seed(3)
    LlamaForSequenceClassification(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_base).save_pretrained(folder)
    return folder


def test_every_answer_gets_a_probability_once(classifier: Path, tmp_path: Path) -> None:
    write_items(tmp_path / "items.jsonl", 5)
    items = read_items(tmp_path / "items.jsonl")
    journal = Journal(tmp_path / "rows.jsonl")
    answers = [
        AnswerEntry(answer="no " * n, answer_tokens=n, truncated=False, seconds=0.0, reference_logprobs=())
        for n in range(len(items))
    ]
    journal.append(ANSWERS, [(("v", item.item_id), entry) for item, entry in zip(items, answers, strict=True)])
    config = SafetyConfig(model=str(classifier), unsafe_labels=("toxic",), batch_size=2)
    phases: list[str] = []
    for _ in range(2):  # the second time there is nothing left to do
        classify_answers(config, items, journal, ["v"], phases.append)
    assert len(phases) == 1
    values = [entry.value for entry in journal.entries(UNSAFE, "v").values()]
    assert len(values) == 5 and len(set(values)) > 1
    assert all(0 < value < 1 for value in values)


def test_a_classifier_that_cannot_be_used_is_refused(classifier: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no label hateful; it has fine, toxic"):
        Classifier(SafetyConfig(model=str(classifier), unsafe_labels=("hateful",)))
    with pytest.raises(UserError, match="cannot be loaded"):
        Classifier(SafetyConfig(model=str(tmp_path / "nothing"), unsafe_labels=("toxic",)))
