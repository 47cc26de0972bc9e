from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from feedback.events import Edit
from feedback.examples import Example
from feedback.ingest.run import IngestConfig, run_ingest
from feedback.lake.quarantine import accept, held_rows
from feedback.quality.expectations import (
    _COLUMNS,
    ExpectationError,
    _columns_named,
    evaluate_suite,
    refused_by_suite,
    validate_suite,
)
from feedback.quality.suite import ExpectationsConfig, ExpectationSpec
from infra.errors import UserError
from tests.feedback.world import START, feedback_on, interaction, make_lake, make_store


def example(number: int, **fields: object) -> Example:
    values = {
        "example_id": f"x{number}",
        "tenant": "acme",
        "subject": f"s{number}",
        "shape": "completion",
        "messages": [{"role": "user", "content": "a question"}],
        "completion": "an answer",
        "group": "g",
        "reason": "edit",
        "created_at": START,
    }
    return Example.model_validate(values | fields)


def one(expectation: str, arguments: dict[str, object], severity: str) -> ExpectationsConfig:
    spec = {"name": "mine", "expectation": expectation, "arguments": arguments, "severity": severity}
    return ExpectationsConfig(suite=(ExpectationSpec.model_validate(spec),))


def test_broken_rows_are_named_with_their_reason() -> None:
    rows = [
        example(1),
        example(2, completion="<script>alert(1)</script>"),
        example(3, completion="z" * 300),
        example(4, shape="document", completion=None, messages=[], text="too short"),
        example(5, messages=[{"role": "assistant", "content": "I speak last"}]),
    ]
    found = {name: code for name, (code, _) in refused_by_suite(rows, ExpectationsConfig(), None).items()}
    assert found == {
        "x2": "expectation:answer-is-not-markup",
        "x3": "expectation:answer-is-not-noise",
        "x4": "expectation:document-length",
        "x5": "expectation:last-turn-not-assistant",
    }


def test_an_expectation_that_errors_is_neither_good_nor_bad_data() -> None:
    with pytest.raises(ExpectationError, match="could not be evaluated"):
        refused_by_suite(
            [example(1)], one("ExpectColumnMeanToBeBetween", {"column": "nowhere", "min_value": 1}, "quarantine"), None
        )


def test_what_stops_the_run_stops_it() -> None:
    with pytest.raises(ExpectationError, match="stop the run"):
        refused_by_suite(
            [example(1)], one("ExpectColumnMeanToBeBetween", {"column": "weight", "min_value": 3}, "stop"), None
        )
    # Without rows to name, quarantine cannot keep anything out, so it stops as well.
    with pytest.raises(ExpectationError, match="stop the run"):
        refused_by_suite([example(1)], one("ExpectTableRowCountToBeBetween", {"min_value": 3}, "quarantine"), None)


@pytest.mark.parametrize(
    ("name", "arguments"), [("ExpectNothing", {}), ("ExpectColumnValuesToNotBeNull", {"colum": "x"})]
)
def test_a_suite_that_names_what_does_not_exist_is_a_users_mistake(name: str, arguments: dict[str, object]) -> None:
    with pytest.raises(UserError, match="mine"):
        refused_by_suite([example(1)], one(name, arguments, "stop"), None)


def test_one_more_expectation_stands_beside_the_suite_and_what_each_finds_is_told() -> None:
    more = ExpectationSpec(
        name="no-internal-hosts",
        expectation="ExpectColumnValuesToNotMatchRegex",
        arguments={"column": "response", "regex": r"\.corp\.example\b"},
    )
    odd = ExpectationSpec(
        name="odd", expectation="ExpectColumnMeanToBeBetween", arguments={"column": "nowhere", "min_value": 1}
    )
    rows = [example(1, completion="ask db.corp.example"), example(2, completion="<script>"), example(3)]
    codes = {name: code for name, (code, _) in refused_by_suite(rows, ExpectationsConfig(also=(more,)), None).items()}
    assert codes == {"x1": "expectation:no-internal-hosts", "x2": "expectation:answer-is-not-markup"}
    found = {one.spec.name: one for one in evaluate_suite(rows, ExpectationsConfig(also=(more, odd)), None)}
    assert found["no-internal-hosts"].rows == ("x1",) and not found["no-internal-hosts"].met
    assert found["prompt-length"].met and found["prompt-length"].error is None
    assert "nowhere" in (found["odd"].error or "")
    with pytest.raises(ValidationError, match="two expectations are named 'prompt-length'"):
        ExpectationsConfig(also=(more.model_copy(update={"name": "prompt-length"}),))


def test_a_suite_is_tried_out_before_it_is_needed() -> None:
    validate_suite(ExpectationsConfig())
    fine = ExpectationSpec(
        name="mostly-short",
        expectation="ExpectColumnMedianToBeBetween",
        arguments={"column": "turns", "min_value": 100},
        severity="stop",
    )
    validate_suite(ExpectationsConfig(also=(fine,)))  # broken by what is made up, and that says nothing
    mistakes: list[tuple[dict[str, object], str]] = [
        ({"column": "nocol"}, "nocol"),
        ({"column": "prompt", "regex": "("}, "unterminated"),
        ({"column": "prompt", "regex": "x", "mostly": 7}, "less than or equal to 1"),
    ]
    for arguments, why in mistakes:
        kind = "ExpectColumnValuesToMatchRegex" if "regex" in arguments else "ExpectColumnValuesToBeUnique"
        with pytest.raises(UserError, match=why) as caught:
            validate_suite(one(kind, arguments, "quarantine"))
        assert "\n" not in str(caught.value)
    quantiles: dict[str, object] = {"quantiles": [0.5], "value_ranges": [[1, 5]]}
    breaks_off = one("ExpectColumnQuantileValuesToBeBetween", {"column": "turns", "quantile_ranges": quantiles}, "stop")
    with pytest.raises(UserError, match="broke off"):
        validate_suite(breaks_off)
    with pytest.raises(ExpectationError, match="nothing was taken"):
        refused_by_suite([example(1)], breaks_off, None)


def test_in_an_ingest_rows_are_held_released_and_documented(tmp_path: Path) -> None:
    store, lake = make_store(tmp_path), make_lake(tmp_path)
    for number, text in enumerate(["fine", "<script>x"]):
        store.record_interaction(interaction(number, f"question {number} about something"))
        store.record_feedback(feedback_on(number, Edit(text=text)))
    report = run_ingest(store, lake, (), IngestConfig())
    assert report.counts["fates"] == {"accepted": 1, "quarantined": 1}
    assert report.data_docs is not None and (report.data_docs / "index.html").exists()
    (row,) = held_rows(store, lake)
    assert row.code == "expectation:answer-is-not-markup" and "<script>x" in row.content
    accept(store, lake, row.row_id, by="ann")
    assert run_ingest(store, lake, (), IngestConfig()).shapes == {"completion": 1, "preference": 1}
    assert held_rows(store, lake) == []


ATTACKS = (
    "<script>alert(1)</script> hello",
    "<iframe src=javascript:alert(2)></iframe>",
    "</script><script>alert(3)</script>",
    "<img src=x onerror=alert(4)> javascript:",
    "\"' onmouseover=alert(5) javascript:",
)


def test_data_docs_hold_what_users_wrote_as_text_only(tmp_path: Path) -> None:
    rows = [example(n, completion=text, reason=text, task=text, user=text) for n, text in enumerate(ATTACKS)]
    also: tuple[tuple[str, dict[str, object]], ...] = (
        ("ExpectColumnValuesToBeInSet", {"column": "reason", "value_set": ["edit"]}),
        ("ExpectColumnDistinctValuesToBeInSet", {"column": "task", "value_set": ["none"]}),
        ("ExpectColumnMostCommonValueToBeInSet", {"column": "user", "value_set": ["none"]}),
        ("ExpectColumnPairValuesToBeEqual", {"column_A": "reason", "column_B": "shape"}),
        ("ExpectColumnValuesToNotBeNull", {"column": "<img src=x onerror=alert(6)>"}),
    )
    specs = tuple(
        ExpectationSpec.model_validate({"name": f"also-{n}", "expectation": kind, "arguments": arguments})
        for n, (kind, arguments) in enumerate(also)
    )
    found = {one.spec.name: one for one in evaluate_suite(rows, ExpectationsConfig(also=specs), tmp_path)}
    assert found["answer-is-not-markup"].rows == ("x0", "x1", "x2", "x3", "x4"), "judged is what was said"
    assert found["also-0"].rows == ("x0", "x1", "x2", "x3", "x4") and found["also-4"].error
    pages = [path.read_text() for path in tmp_path.rglob("*.html")]
    assert any("&lt;script&gt;alert(1)" in page for page in pages), "they are shown"
    live = ("<script>alert", "<iframe src", "<img src=x", "\"' onmouseover")
    assert [(mark, page[max(0, page.find(mark) - 80) :][:160]) for mark in live for page in pages if mark in page] == []


def test_a_stopped_run_takes_nothing_and_can_be_run_again(tmp_path: Path) -> None:
    store, lake = make_store(tmp_path), make_lake(tmp_path)
    store.record_interaction(interaction(1, "a question about something"))
    store.record_feedback(feedback_on(1, Edit(text="fine")))
    strict = one("ExpectTableRowCountToBeBetween", {"min_value": 100}, "stop")
    with pytest.raises(ExpectationError):
        run_ingest(store, lake, (), IngestConfig(expectations=strict))
    assert lake.last() is None and lake.examples() == []
    assert run_ingest(store, lake, (), IngestConfig()).counts["fates"] == {"accepted": 1}


@pytest.mark.parametrize("severity", ["quarantine", "stop"])
def test_mostly_lets_its_share_of_breaches_pass(severity: str) -> None:
    rows = [example(number, completion="short" if number else "far too long an answer") for number in range(10)]
    arguments: dict[str, object] = {"column": "response", "max_value": 10, "mostly": 0.9}
    config = one("ExpectColumnValueLengthsToBeBetween", arguments, severity)
    (found,) = evaluate_suite(rows, config, None)
    assert found.met and found.rows == ("x0",)
    assert refused_by_suite(rows, config, None) == {}
    more = [*rows, example(10, completion="another one that is too long")]
    if severity == "quarantine":
        assert set(refused_by_suite(more, config, None)) == {"x0", "x10"}
    else:
        with pytest.raises(ExpectationError, match="2 rows break it"):
            refused_by_suite(more, config, None)


@pytest.mark.parametrize(
    ("expectation", "arguments", "more"),
    [
        ("ExpectColumnValuesToNotBeNull", {"column": "version"}, {"version"}),
        ("ExpectColumnValuesToNotBeNull", {"column": "version", "row_condition": 'task=="x"'}, {"version", "task"}),
        ("ExpectTableRowCountToBeBetween", {"min_value": 1}, set(_COLUMNS)),
        ("ExpectSelectColumnValuesToBeUniqueWithinRecord", {"column_list": ["user", "task"]}, set(_COLUMNS)),
    ],
)
def test_only_the_columns_that_a_suite_can_look_at_are_handed_over(
    expectation: str, arguments: dict[str, Any], more: set[str]
) -> None:
    named = {"example_id", "shape", "prompt", "response", "last_role", "group", "user"}  # "user" is a role, too
    assert set(_columns_named(ExpectationsConfig())) == named
    spec = ExpectationSpec(name="more", expectation=expectation, arguments=arguments)
    assert set(_columns_named(ExpectationsConfig(also=(spec,)))) == named | more
