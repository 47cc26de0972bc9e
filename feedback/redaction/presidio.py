"""Find personal data by presidio's recognisers (extra `presidio`), instead of or beside Ratchet's own patterns.

Their pattern recognisers run without any model. Those of numbers that states give (passports, licences, tax and health
numbers) take most numbers of the right length for one, so they count only with a word before them that says so, as
presidio's own context does with a model's help; forms that little else has count by themselves. Their recognisers of
addresses, vehicles, companies and dates are left out, and what one of their releases does not have is passed over.
With a spaCy model named in the config, people's names are found too.
Nothing is fetched: presidio's check of mail domains uses the list of suffixes that comes with its package.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from feedback.redaction.national_ids import WORD, holds_word
from feedback.redaction.spans import first_come
from infra.errors import UserError

Find = tuple[int, int, str]
_KINDS = {
    "EMAIL_ADDRESS": "EMAIL",
    "CREDIT_CARD": "CARD",
    "IBAN_CODE": "IBAN",
    "IP_ADDRESS": "IP",
    "PHONE_NUMBER": "PHONE",
}
_EVIDENT_IDS = (
    "UsSsn", "UsItin", "UkNino", "UkDrivingLicence", "EsNif", "EsNie", "ItFiscalCode", "FiPersonalIdentityCode",
    "SgFin",
)  # fmt: skip
"""Recognisers of forms that presidio itself takes for an id without more."""
_SAID_IDS = (
    "UsPassport", "UsLicense", "UsMbi", "Nhs", "UkPassport", "EsPassport", "ItDriverLicense", "ItIdentityCard",
    "ItPassport", "DeTaxId", "DePassport", "DeIdCard", "DeSocialSecurity", "DeHealthInsurance", "DeFuehrerschein",
    "PlPesel", "AuTfn", "AuMedicare", "InPan", "InAadhaar", "InVoter", "InPassport", "CaSin", "SePersonnummer",
    "KrRrn", "KrFrn", "KrPassport", "KrDriverLicense", "ThTnin", "TrNationalId", "ZaIdNumber", "ZaPassport",
    "ZaDriverLicense", "NgNin", "PhUmid", "PhTin", "PhPassport",
)  # fmt: skip
"""Recognisers whose finds count right after a word such as "passport number"."""
_BEFORE = re.compile(WORD + r"[^\d\n]{0,40}\Z")
_REGIONS = ("US", "GB", "DE", "FR", "ES", "IT", "IN", "BR")
LEAST_SCORE = 0.4
"""Confidence from which a find counts; presidio gives telephone numbers without context 0.4."""


def presidio_finder(spacy_model: str | None = None) -> Callable[[str], Iterator[Find]]:
    """Make a function that gives (start, end, entity) of every find in a text, in order, none overlapping.

    Raises:
        UserError: presidio or the spaCy model is not installed.
    """
    try:
        recognisers = _recognisers()
    except ImportError as error:
        raise UserError(
            f"redact.recognisers asks for presidio, which is not installed ({error}); `pip install 'ratchet[presidio]'`"
        ) from None
    evident, named = _id_recognisers()
    language = _language(spacy_model) if spacy_model else None

    def find(text: str) -> Iterator[Find]:
        hits: list[tuple[float, Find]] = []
        for could_hold, recogniser in recognisers:
            if not could_hold(text):
                continue
            for hit in recogniser.analyze(text, recogniser.supported_entities, None) or ():
                if hit.score >= LEAST_SCORE:
                    hits.append((-hit.score, (hit.start, hit.end, _KINDS[hit.entity_type])))
        if _digits(4)(text):
            for recogniser in (*evident, *(named if holds_word(text) else ())):
                for hit in recogniser.analyze(text, recogniser.supported_entities, None) or ():
                    preceded = _BEFORE.search(text, max(0, hit.start - 100), hit.start) is not None
                    if preceded or (recogniser in evident and hit.score >= LEAST_SCORE):
                        hits.append((-max(hit.score, LEAST_SCORE + preceded / 10), (hit.start, hit.end, "NATIONAL_ID")))
        if language is not None:
            hits += [
                (-0.85, (e.start_char, e.end_char, "PERSON"))
                for e in language(text).ents
                if e.label_ in ("PERSON", "PER")
            ]
        return iter(first_come(hit for _, hit in sorted(hits)))

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
def _id_recognisers() -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """presidio's recognisers of `_EVIDENT_IDS` and of `_SAID_IDS`."""
    from presidio_analyzer import predefined_recognizers

    def made(names: tuple[str, ...]) -> tuple[Any, ...]:
        kinds = (getattr(predefined_recognizers, f"{name}Recognizer", None) for name in names)
        return tuple(kind() for kind in kinds if kind is not None)

    return made(_EVIDENT_IDS), made(_SAID_IDS)


@cache
def _language(model: str) -> Any:
    import spacy

    try:
        return spacy.load(model)
    except OSError as error:
        raise UserError(f"redact.spacy_model: {error}; install the model, or leave it out") from None
