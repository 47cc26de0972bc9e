"""presidio's recognisers beside ours: offline, and nothing of what they find is missed by the patterns."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from benchmarks.personal_corpus import CLEAN, MARKED, parsed
from feedback.redaction.patterns import find_personal
from feedback.redaction.redact import RedactConfig, Redactor, finder_of
from infra.errors import UserError


@pytest.mark.parametrize("line", MARKED)
def test_the_patterns_find_what_is_marked(line: str) -> None:
    text, spans = parsed(line)
    hits = list(find_personal(text))
    for start, end, kind in spans:
        assert any(s <= start and e >= end and k == kind for s, e, k in hits), (text[start:end], hits)


@pytest.mark.parametrize("line", CLEAN)
def test_the_patterns_leave_the_rest_alone(line: str) -> None:
    assert list(find_personal(line)) == []


@pytest.mark.slow
def test_presidio_runs_without_the_network_and_finds_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise AssertionError("a name was looked up")

    monkeypatch.setattr(socket, "getaddrinfo", refused)
    find = finder_of(RedactConfig(recognisers="presidio"))
    assert Redactor(find=find).text("a@example.org, password: hunter22!x") == "[EMAIL_1], password: [SECRET_1]"
    assert Redactor(find=find).text("My passport number is 533380006") == "My passport number is [NATIONAL_ID_1]"
    assert Redactor(find=find).text("My SSN is 536-90-4399") == "My SSN is [NATIONAL_ID_1]"
    assert list(find("order 533380006 of the week")) == []
    for line in MARKED:
        text, spans = parsed(line)
        mine, theirs = (
            {(start, kind) for start, end, kind in spans for s, e, k in found if s <= start and e >= end and k == kind}
            for found in (list(find_personal(text)), list(find(text)))
        )
        assert theirs <= mine, text


@pytest.mark.slow
def test_looking_first_whether_a_text_can_hold_anything_loses_nothing() -> None:
    from feedback.redaction.presidio import LEAST_SCORE, _recognisers

    texts = [parsed(line)[0] for line in MARKED] + [
        *CLEAN,
        "::1",
        "fe80::1%eth0",
        "٠٣٠ ١٢٣٤٥٦٧",
        "call +1 (202) 555-0143",
    ]
    for text in texts:
        for could_hold, recogniser in _recognisers():
            hits = recogniser.analyze(text, recogniser.supported_entities, None) or ()
            assert could_hold(text) or not [h for h in hits if h.score >= LEAST_SCORE], (text, recogniser.name)


def test_names_are_found_with_a_spacy_model(tmp_path: Path) -> None:
    import spacy

    language = spacy.blank("en")
    language.add_pipe("entity_ruler").add_patterns([{"label": "PERSON", "pattern": "Ada Lovelace"}])  # type: ignore[attr-defined]
    language.to_disk(tmp_path / "names")
    find = finder_of(RedactConfig(recognisers="both", spacy_model=str(tmp_path / "names")))
    said = "Ada Lovelace (ada@example.org) asked; tell Ada Lovelace"
    assert Redactor(find=find).text(said) == "[PERSON_1] ([EMAIL_1]) asked; tell [PERSON_1]"
    with pytest.raises(UserError, match=r"redact\.spacy_model.*leave it out"):
        finder_of(RedactConfig(recognisers="both", spacy_model=str(tmp_path / "nowhere")))
    with pytest.raises(ValidationError, match="say recognisers: both"):
        RedactConfig(spacy_model="en_core_web_sm")
