"""Each metric on answers whose value is plain to see."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

import evaluation.metrics
from evaluation.metrics import METRICS, find_metric
from evaluation.metrics.metric import MetricInput
from evaluation.metrics.python_metric import score_apart
from infra.errors import UserError
from training.graders.subprocess_grader import SubprocessGrader

TRIAGE = '{"category": "billing", "order": 7, "urgent": true, "note": null}'


def value(name: str, answer: str, reference: str, **facts: object) -> float | None:
    return find_metric(name).score(MetricInput(reference=reference, answer=answer, **facts))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "answer", "reference", "expected"),
    [
        ("exact_match", " Paris. ", "paris", 1.0),
        ("exact_match", "Paris, France", "Paris", 0.0),
        ("exact_match", '{"order": 7.0, "urgent": true, "note": null, "category": "billing"}', TRIAGE, 1.0),
        ("exact_match", "```json\n" + TRIAGE + "\n```", TRIAGE, 1.0),
        ("exact_match", TRIAGE.replace("true", "1"), TRIAGE, 0.0),
        ("exact_match", TRIAGE + " I hope this helps!", TRIAGE, 0.0),
        ("exact_match", "", TRIAGE, 0.0),
        ("json_validity", "[1, 2]", TRIAGE, 1.0),
        ("json_validity", "7", TRIAGE, 0.0),
        ("json_validity", '{"a": 1, "a": 2}', TRIAGE, 0.0),
        ("json_validity", '{"a": NaN}', TRIAGE, 0.0),
        ("json_validity", "[" * 100_000, TRIAGE, 0.0),
        ("json_validity", "{}", "prose", None),
        ("json_schema", '{"category": "x", "order": 1.5, "urgent": false, "note": "n"}', TRIAGE, 1.0),
        ("json_schema", '{"category": "x", "order": "1", "urgent": false, "note": "n"}', TRIAGE, 0.0),
        ("json_schema", '{"category": "x", "order": 1, "urgent": false}', TRIAGE, 0.0),
        ("json_schema", "[1]", "[1]", None),
        ("json_fields", TRIAGE, TRIAGE, 1.0),
        ("json_fields", TRIAGE.replace("7", "8"), TRIAGE, 0.75),
        ("json_fields", '{"category": "billing", "extra": 1}', TRIAGE, 0.2),
        ("json_fields", "sorry", TRIAGE, 0.0),
        ("json_fields", "sorry", "sorry", None),
        ("numeric_answer", "It costs $1,200.00 in all.", "#### 1200", 1.0),
        ("numeric_answer", "12 and then 13", "12", 0.0),
        ("numeric_answer", "none", "12", 0.0),
        ("numeric_answer", "3", "the year 2003 was long", None),
        ("rouge_l", "the cat sat", "the cat sat", 1.0),
        ("rouge_l", "dogs", "the cat sat", 0.0),
        ("rouge_l", "{}", TRIAGE, None),
        ("chrf", "the cat sat", "the cat sat", 1.0),
        ("chrf", "zzz", "the cat sat", 0.0),
        ("refusal", "I'm sorry, but I can't do that.", "Of course: ...", 1.0),
        ("refusal", "I’m unable to help.", "Of course: ...", 1.0),
        ("refusal", "Your order is on its way.", "Of course: ...", 0.0),
        ("refusal", "Of course!", "I cannot help with that.", None),
        ("repetition", "a b c d " * 10, "x", 1 - 4 / 37),
        ("repetition", "one two three four five", "x", 0.0),
        ("repetition", "short", "x", 0.0),
        ("regex", "Order N4821 is late", "N[0-9]{4}", None),
        ("unsafe", "anything", "x", None),
    ],
)
def test_value(name: str, answer: str, reference: str, expected: float | None) -> None:
    found = value(name, answer, reference)
    assert found == (expected if expected is None else pytest.approx(expected))


def test_a_grader_can_ask_for_numbers() -> None:
    assert value("numeric_answer", "that makes 2003", "the year 2003", grader="numeric_answer") == 1.0


def test_loss_is_nats_per_token_of_the_reference() -> None:
    assert value("loss", "", "x", reference_logprobs=(math.log(0.5), math.log(0.25))) == pytest.approx(
        1.5 * math.log(2), abs=1e-6
    )
    assert value("loss", "", "x") is None


def test_perplexity_is_e_to_the_loss_and_bounded() -> None:
    assert value("perplexity", "", "x", reference_logprobs=(math.log(0.5), math.log(0.125))) == pytest.approx(4.0)
    assert value("perplexity", "", "x", reference_logprobs=(-1000.0,)) == 1e6
    assert value("perplexity", "", "x") is None


def test_a_pattern_grades_where_the_question_asks_for_it_and_has_a_time_limit() -> None:
    assert value("regex", "Order N4821 is late", "N[0-9]{4}", grader="regex") == 1.0
    assert value("regex", "Order 4821 is late", "N[0-9]{4}", grader="regex") == 0.0
    assert value("regex", "x", "([broken", grader="regex") is None
    assert value("regex", "a" * 40 + "b", "(a|a)*c|(a+)+$", grader="regex") == 0.0  # would take for ever


SCHEMA = '{"type": "object", "required": ["order"], "properties": {"order": {"type": "integer"}}}'


def test_a_schema_grades_where_the_question_asks_for_it() -> None:
    assert value("json_schema", '{"order": 7}', SCHEMA, grader="json_schema") == 1.0
    assert value("json_schema", '{"order": "7"}', SCHEMA, grader="json_schema") == 0.0
    assert value("json_schema", "order 7", SCHEMA, grader="json_schema") == 0.0
    assert value("json_schema", "{}", '{"type": 5}', grader="json_schema") is None
    assert value("json_schema", "{}", "no schema", grader="json_schema") is None
    assert value("json_validity", '{"order": 7}', SCHEMA, grader="json_schema") == 1.0


@pytest.mark.parametrize(("reference", "grader"), [(SCHEMA, "json_schema"), ("[1]", "regex"), ("12", "regex")])
def test_nothing_is_compared_with_a_reference_that_is_no_answer(reference: str, grader: str) -> None:
    compared = {"chrf", "exact_match", "json_fields", "loss", "numeric_answer", "perplexity", "rouge_l"}
    compared |= {"json_schema", "json_validity"} if grader == "regex" else set()
    for name in compared:
        assert value(name, reference, reference, grader=grader, reference_logprobs=(-1.0,)) is None, name


def test_a_classifier_s_word_is_a_metric() -> None:
    assert value("unsafe", "x", "y", unsafe=0.25) == 0.25


OWN = """
import time
def closeness(answer, reference):
    print("noise on stdout")
    if reference == "skip":
        return None
    if answer == "hang":
        time.sleep(60)
    return 1.0 / (1 + abs(len(answer) - len(reference))) if answer != "nan" else float("nan")
"""


def test_a_function_of_your_own_is_a_metric_with_a_time_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_own_metric.py").write_text(OWN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    name = "python:my_own_metric:closeness"
    grader = SubprocessGrader(name)
    try:
        given = [("abc", "abc"), ("ab", "abc"), ("hang", "abc"), ("abc", "abc"), ("nan", "abc"), ("abc", "skip")]
        values = [score_apart(grader, MetricInput(reference=r, answer=a), seconds=2.0) for a, r in given]
    finally:
        grader.stop()
    assert values == [1.0, 0.5, 0.0, 1.0, 0.0, None]
    with pytest.raises(UserError, match=r"python:my_own_metric:nothing cannot be used: AttributeError"):
        find_metric("python:my_own_metric:nothing")
    with pytest.raises(UserError, match="names no function"):
        find_metric("python:no function")


def test_length_counts_tokens_and_has_no_better_direction() -> None:
    assert value("length", "abc", "x", answer_tokens=17) == 17.0
    assert find_metric("length").direction == "neutral"


def test_the_registry_holds_every_metric_file_and_nothing_else() -> None:
    folder = Path(evaluation.metrics.__file__).parent
    shared = {"__init__", "metric", "python_metric", "safety"}
    assert {file.stem for file in folder.glob("*.py")} - shared == set(METRICS)
    for name in METRICS:
        assert find_metric(name).name == name


def test_whether_a_metric_applies_depends_on_the_question_alone() -> None:
    answers = ["", TRIAGE, "I am sorry", "12", "words " * 50, "[", '{"a": 1}']
    for reference in (TRIAGE, "12", "I cannot help", "some prose", "#### 4"):
        for name in set(METRICS) - {"loss", "perplexity", "unsafe"}:
            applies = {value(name, answer, reference) is None for answer in answers}
            assert len(applies) == 1, (name, reference)


def test_an_unknown_metric_is_named_with_those_there_are() -> None:
    with pytest.raises(UserError, match=r"unknown metric 'bleurt'; expected one of chrf, exact_match"):
        find_metric("bleurt")
