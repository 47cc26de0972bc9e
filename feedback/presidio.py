"""presidio's recognisers of personal data (extra `presidio`), instead of or beside Ratchet's own patterns.

Their pattern recognisers run without any model. With a spaCy model named in the config, people's names are found too.
Nothing is fetched: presidio's check of mail domains uses the list of suffixes that comes with its package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from feedback.redact import first_come
from infra.errors import UserError

Find = tuple[int, int, str]
_KINDS = {
    "EMAIL_ADDRESS": "EMAIL",
    "CREDIT_CARD": "CARD",
    "IBAN_CODE": "IBAN",
    "IP_ADDRESS": "IP",
    "PHONE_NUMBER": "PHONE",
}
_REGIONS = ("US", "GB", "DE", "FR", "ES", "IT", "IN", "BR")
LEAST_SCORE = 0.4
"""Confidence from which a find counts; presidio gives telephone numbers without context 0.4."""


def presidio_finder(spacy_model: str | None = None) -> Callable[[str], Iterator[Find]]:
    """A function that gives (start, end, entity) of every find in a text, in order, none overlapping.

    Raises:
        UserError: presidio or the spaCy model is not installed.
    """
    try:
        recognisers = _recognisers()
    except ImportError as error:
        raise UserError(
            f"redact.recognisers asks for presidio, which is not installed ({error}); `pip install 'ratchet[presidio]'`"
        ) from None
    language = _language(spacy_model) if spacy_model else None

    def find(text: str) -> Iterator[Find]:
        found: list[tuple[float, Find]] = []
        for could_hold, recogniser in recognisers:
            if not could_hold(text):
                continue
            for hit in recogniser.analyze(text, recogniser.supported_entities, None) or ():
                if hit.score >= LEAST_SCORE:
                    found.append((-hit.score, (hit.start, hit.end, _KINDS[hit.entity_type])))
        if language is not None:
            found += [
                (-0.85, (e.start_char, e.end_char, "PERSON"))
                for e in language(text).ents
                if e.label_ in ("PERSON", "PER")
            ]
        return iter(first_come(hit for _, hit in sorted(found)))

    return find


def _digits(fewest: int) -> Callable[[str], bool]:
    """Whether a text has so many digits, of any script."""
    return lambda text: sum(map(str.isdecimal, text)) >= fewest


def _address(text: str) -> bool:
    return ":" in text or ("." in text and any(map(str.isdecimal, text)))


@cache
def _recognisers() -> tuple[tuple[Callable[[str], bool], Any], ...]:
    """Each with what all its finds must hold: most texts hold none of it, and analysing costs a hundredfold."""
    import tldextract
    from presidio_analyzer.predefined_recognizers import (
        CreditCardRecognizer,
        EmailRecognizer,
        IbanRecognizer,
        IpRecognizer,
        PhoneRecognizer,
    )

    suffixes = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)

    class Mail(EmailRecognizer):  # type: ignore[misc]
        """presidio's, with the suffixes it brings along instead of fetched ones."""

        def validate_result(self, pattern_text: str) -> bool:
            return suffixes(pattern_text).fqdn != ""

    phones = PhoneRecognizer(supported_regions=_REGIONS)
    return (
        (lambda text: "@" in text, Mail()),
        (_digits(12), CreditCardRecognizer()),
        (_digits(2), IbanRecognizer()),
        (_address, IpRecognizer()),
        (_digits(2), phones),
    )


@cache
def _language(model: str) -> Any:
    import spacy

    try:
        return spacy.load(model)
    except OSError as error:
        raise UserError(f"redact.spacy_model: {error}; install the model, or leave it out") from None
