"""Graders: what they find right, and that no grader can stop a stage by raising, hanging or lying."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedback.examples import Example
from infra.errors import NotFound, UserError
from tests.training.world import example
from training.engines.native.online.advantages import encode_prompt
from training.graders import GRADERS, grader_for, grader_named
from training.graders.grading import Grading
from training.objectives import objective_named

words = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=40)


def note(reference: str | None = "right", grader: str | None = None) -> str:
    return json.dumps({"reference": reference, "grader": grader, "messages": [{"role": "user", "content": "q"}]})


def test_the_registry_holds_what_it_names() -> None:
    assert [grader_named(name).name for name in GRADERS] == list(GRADERS)
    with pytest.raises(NotFound, match="unknown grader 'exact'"):
        grader_named("exact")


@settings(max_examples=40)
@given(words)
def test_exact_match_forgives_case_space_and_closing_marks_only(text: str) -> None:
    grade = grader_named("exact_match").grade
    assert grade(text, text) == 1
    assert grade(f"  {text}. ", text) == 1
    assert grade(text + "x", text) == 0


@settings(max_examples=40)
@given(st.integers(-(10**9), 10**9), st.text(st.characters(categories=("L", "Z")), max_size=30))
def test_numeric_answer_reads_the_last_number(number: int, prose: str) -> None:
    grade = grader_named("numeric_answer").grade
    assert grade(f"first 12 apples, then {prose} {number}", str(number)) == 1
    assert grade(f"{number:,}", f"a long way\n#### {number}") == 1
    assert grade(f"{prose} {number + 1}", str(number)) == 0
    assert grade(prose, str(number)) == 0


@settings(max_examples=40)
@given(st.dictionaries(words, st.one_of(st.none(), st.booleans(), st.integers(), words), max_size=5))
def test_json_fields_is_the_share_of_right_fields(fields: dict[str, object]) -> None:
    grade = grader_named("json_fields").grade
    assert grade(json.dumps(fields), json.dumps(fields)) == 1
    assert grade("```json\n" + json.dumps(fields, indent=1) + "\n```", json.dumps(fields)) == 1
    wrong = {name: [value] for name, value in fields.items()}
    assert grade(json.dumps(wrong), json.dumps(fields)) == (0 if fields else 1)
    assert 0 <= grade(json.dumps({**fields, "more": 1}), json.dumps(fields)) < 1
    assert grade("not json", json.dumps(fields)) == 0


def test_json_schema_and_regex() -> None:
    schema = json.dumps({"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}})
    grade = grader_named("json_schema").grade
    assert [grade(a, schema) for a in ('{"n": 3}', '{"n": "3"}', "{}", "n = 3")] == [1, 0, 0, 0]
    match = grader_named("regex").grade
    assert [match(a, r"^\d{3}-\d{2}$") for a in ("123-45", "a 123-45", "12345")] == [1, 0, 0]


def test_the_look_of_a_reference_picks_its_grader() -> None:
    looks = {
        '{"a": 1}': "json_fields",
        "[1]": "json_fields",
        "so\n#### 12": "numeric_answer",
        "1,200": "numeric_answer",
    }
    assert {r: grader_for(None, r) for r in looks} == looks
    assert grader_for(None, "Paris") == "exact_match" and grader_for("regex", "Paris") == "regex"


def test_data_cannot_name_code() -> None:
    assert grader_for("python:os:system", "x") is None
    row = Example.model_validate(example(1, "problem", reference="x", grader="python:os:system"))
    with pytest.raises(Exception, match="is none of exact_match"):
        encode_prompt(row, None, None)  # type: ignore[arg-type]
    with pytest.raises(Exception, match=r"unknown grader 'os\.system'"):
        objective_named("grpo").options.model_validate({"grader": "os.system"})


def own(name: str, seconds: float = 5.0) -> Grading:
    return Grading(own=f"python:tests.training.own_graders:{name}", seconds=seconds)


def test_ones_own_function_gets_answer_reference_and_prompt_and_may_print() -> None:
    grading = own("with_prompt")
    assert grading.grade([("the q is here", note()), ("no", note())]) == [1, 0]
    grading.close()
    grading = own("noisy")
    assert grading.grade([("a", note())] * 3) == [0.5] * 3
    grading.close()


def test_a_grader_that_raises_or_gives_no_number_counts_zero_and_is_counted() -> None:
    grading = own("raises_sometimes")
    assert grading.grade([("fine", note()), ("bad", note()), ("fine", note())]) == [1, 0, 1]
    assert (grading.failures, grading.graded) == (1, 3) and "no idea" in grading.last_error
    with pytest.raises(UserError, match=r"failed on all 2 answers.*no idea what to do"):
        grading.grade([("bad", note()), ("bad", note())])
    grading.close()
    grading = own("not_a_number")
    with pytest.raises(UserError, match="the grade is nan"):
        grading.grade([("fine", note())])
    grading.close()


def test_a_grader_that_hangs_is_stopped_and_the_next_answer_is_graded() -> None:
    grading = own("hangs")
    grading.check()
    grading.seconds = 0.5
    began = time.monotonic()
    assert grading.grade([("bad", note()), ("fine", note())])[0] == 0
    assert grading.failures >= 1 and "no grade within 0.5 s" in grading.last_error
    assert time.monotonic() - began < 60
    grading.close()


def test_a_pattern_that_takes_for_ever_is_stopped() -> None:
    grading = Grading(own="regex", seconds=1.0)
    assert grading.grade([("a" * 40 + "!", note("(a+)+$")), ("aaa", note("^a+$"))])[0] == 0
    assert grading.failures >= 1
    grading.close()


def test_a_grader_that_cannot_be_imported_says_so_before_training() -> None:
    for name in ("python:no_such_module:f", "python:tests.training.own_graders:missing"):
        with pytest.raises(UserError, match="cannot be used"):
            Grading(own=name).check()


def test_a_schema_from_feedback_fetches_nothing() -> None:
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from threading import Thread

    from training.graders.json_schema import grade

    asked: list[str] = []

    class Elsewhere(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"type": "object"}')

    with HTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        assert grade("{}", json.dumps({"$ref": f"http://127.0.0.1:{server.server_port}/schema"})) == 0.0
        server.shutdown()
    assert asked == []
    assert grade("{}", json.dumps({"$defs": {"o": {"type": "object"}}, "$ref": "#/$defs/o"})) == 1.0
