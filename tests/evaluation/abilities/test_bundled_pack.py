"""The bundled pack of base abilities: whole, balanced, answerable by looking at it, and scored as lm-eval scores it."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from evaluation.abilities.bundled_pack import PACK, PASSAGES, measure_again, pack_tasks
from evaluation.abilities.lm_eval_names import unknown_tasks
from evaluation.abilities.measure import measure
from infra.errors import UserError
from training.generation.generator import Generator, Request


def test_every_document_of_the_pack_is_whole() -> None:
    seen = Counter[str]()
    positions = Counter[int]()
    for task in pack_tasks():
        for line in (PACK / f"{task}.jsonl").read_text().splitlines():
            document = json.loads(line)
            seen[document["id"]] += 1
            if task == PASSAGES:
                assert set(document) == {"id", "text"}
                continue
            assert set(document) == {"id", "question", "choices", "answer"}
            assert 0 <= document["answer"] < len(document["choices"]) >= 3
            assert len(set(document["choices"])) == len(document["choices"])
            positions[document["answer"]] += 1
    assert 100 <= len(seen) <= 150
    assert max(seen.values()) == 1
    assert max(positions.values()) < len(seen) / 2  # the right choice has no favourite place


def test_the_pack_is_scored_as_lm_eval_scores_it(tiny_base: Path, tmp_path: Path) -> None:
    from evaluation.abilities.lm_eval_tasks import measure_tasks, pack_definition

    generator = Generator(tiny_base, dtype="float32", threads=1)
    ours = {score.item_id: score for score in measure(generator, None, limit=6, scratch=tmp_path)}
    definitions = [pack_definition(task, tmp_path) for task in pack_tasks() if task != PASSAGES]
    theirs = measure_tasks(generator, None, tasks=definitions, limit=6, scratch=tmp_path)
    assert len(theirs) == 30
    for score in theirs:
        assert ours[score.item_id].accuracy == score.accuracy
        assert ours[score.item_id].probability == pytest.approx(score.probability, abs=1e-4)
    assert sum(score.loss is not None for score in ours.values()) == 6
    with pytest.raises(UserError, match="lm-eval knows no task nonesuch"):
        measure_tasks(generator, None, tasks=["nonesuch"], limit=1, scratch=tmp_path)


def test_a_text_without_choices_is_right_where_greedy_decoding_would_say_it(tiny_base: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from evaluation.abilities.bundled_pack import choice_tokens
    from evaluation.abilities.lm_eval_tasks import measure_tasks

    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_base), AutoTokenizer.from_pretrained(tiny_base)
    generator = Generator(tiny_base, dtype="float32", threads=1)
    documents: list[Any] = []
    for question in ("the capital of France is", "two plus two is four", "a refund", "hello", "where is my order"):
        with torch.inference_mode():
            top = int(model(torch.tensor([generator.encode(question)])).logits[0, -1].argmax())
        for text in (tokenizer.decode([top]), " Paris"):
            greedy = choice_tokens(generator, question, text) == (generator.encode(question), (top,))
            documents.append({"id": f"d{len(documents)}", "question": question, "text": text, "greedy": greedy})
    assert {document["greedy"] for document in documents} == {True, False}
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(document) + "\n" for document in documents))
    definition = {
        "task": "texts",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "texts.jsonl")}, "cache_dir": str(tmp_path)},
        "test_split": "test",
        "output_type": "loglikelihood",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{text}}",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    found = measure_tasks(generator, None, tasks=[definition], limit=None, scratch=tmp_path)
    assert {score.item_id: score.accuracy for score in found} == {
        f"texts:{document['id']}": float(document["greedy"]) for document in documents
    }
    assert {score.probability for score in found} == {None}  # there is nothing to share it with


def definition_of(tmp_path: Path, documents: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    (tmp_path / "documents.jsonl").write_text("".join(json.dumps(document) + "\n" for document in documents))
    return {
        "task": "documents",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "documents.jsonl")}, "cache_dir": str(tmp_path)},
        "test_split": "test",
        "doc_to_target": "{{text}}",
        **more,
    }


def test_a_generating_task_is_answered_and_scored_document_by_document(tiny_base: Path, tmp_path: Path) -> None:
    from evaluation.abilities.lm_eval_tasks import measure_tasks

    generator = Generator(tiny_base, dtype="float32", threads=1)
    asked = ["the capital of France is", "two plus two is", "where is my order"]
    requests = [Request(prompt_ids=generator.encode(text), max_tokens=6, stop=("e",)) for text in asked]
    said = [completion.text for completion in generator.generate(requests)]
    documents = [
        {"id": f"d{n}", "question": text, "text": answer if n != 1 else "something else"}
        for n, (text, answer) in enumerate(zip(asked, said, strict=True))
    ]
    generating = {
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "generation_kwargs": {"until": ["e"], "max_gen_toks": 6, "do_sample": False},
    }
    exact = {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}
    found = measure_tasks(
        generator,
        None,
        tasks=[definition_of(tmp_path, documents, metric_list=[exact], **generating)],
        limit=None,
        scratch=tmp_path,
    )
    assert {score.item_id: score.accuracy for score in found} == {
        "documents:d0": 1,
        "documents:d1": 0,
        "documents:d2": 1,
    }
    other = {"metric": "bleu", "aggregation": "bleu", "higher_is_better": True}
    with pytest.raises(UserError, match="expected a share of 0 to 1"):
        definition = definition_of(tmp_path, documents, metric_list=[other], **generating)
        measure_tasks(generator, None, tasks=[definition], limit=None, scratch=tmp_path)


def test_a_passage_of_any_length_has_the_loss_of_its_tokens(tiny_base: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from evaluation.abilities.lm_eval_tasks import measure_tasks

    generator = Generator(tiny_base, dtype="float32", threads=1)
    text = "The harbour was quiet in the morning, and the boats came home one by one. "
    long = text * (2 + generator.context_length // len(generator.encode(text)))
    assert len(generator.encode(long)) > generator.context_length
    documents = [{"id": "short", "text": text}, {"id": "long", "text": long}]
    measure = {"metric": "word_perplexity", "aggregation": "weighted_perplexity", "higher_is_better": False}
    definition = definition_of(
        tmp_path, documents, metric_list=[measure], output_type="loglikelihood_rolling", doc_to_text=""
    )
    found = {s.item_id: s for s in measure_tasks(generator, None, tasks=[definition], limit=None, scratch=tmp_path)}
    model = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32)
    ids = torch.tensor([[min(generator.end_tokens), *generator.encode(text)]])
    with torch.inference_mode():
        expected = float(model(ids, labels=ids).loss)
    assert found["documents:short"].loss == pytest.approx(expected, abs=1e-4)
    assert found["documents:short"].accuracy is None
    whole = found["documents:long"].loss
    assert whole is not None and math.isfinite(whole) and whole > 0


def test_some_documents_scored_once_more_in_other_batches_give_the_same(tiny_base: Path, tmp_path: Path) -> None:
    generator = Generator(tiny_base, dtype="float32", threads=1)
    first = {score.item_id: score for score in measure(generator, None, limit=12, scratch=tmp_path)}
    again = measure_again(generator, None, 18, limit=12)
    assert len(pack_tasks()) <= len(again) <= 24
    assert {score.task for score in again} == set(pack_tasks())
    for score in again:
        assert score.accuracy == first[score.item_id].accuracy
        assert score.loss == pytest.approx(first[score.item_id].loss, abs=1e-4)


def test_a_task_s_name_is_known_without_lm_eval() -> None:
    assert unknown_tasks(["hellaswag", "helaswag", "mmlu", "acp_bench"]) == ["helaswag"]
    assert unknown_tasks([]) == []


def test_continuations_are_those_of_the_whole_text(tiny_base: Path) -> None:
    """Beginnings computed once and branched give what each whole text gives on its own."""
    generator = Generator(tiny_base, dtype="float32", threads=1)
    beginnings = [generator.encode(text) for text in ("the capital of France is", "two plus two is four")]
    asked = [(b, generator.encode(c)) for b in beginnings for c in (" Paris", " the billing portal", " a")]
    whole = generator.logprobs(None, [beginning + continuation for beginning, continuation in asked])
    branched = generator.continuations(None, asked)
    for (beginning, continuation), alone, values in zip(asked, whole, branched, strict=True):
        assert len(values) == len(continuation)
        assert [score.logprob for score in values] == pytest.approx(alone[len(beginning) - 1 :], abs=1e-4)
