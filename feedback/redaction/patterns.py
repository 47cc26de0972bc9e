"""Find personal data and secrets in text by fast patterns, each confirmed by what its kind promises.

Each pattern is behind a cheap test of whether the text can hold a match at all. Confirmed are cards by Luhn, IBANs by
ISO 7064 mod 97-10, addresses by `ipaddress`, phones by counts of digits; what states number their people by is in
national_ids.py.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from typing import Literal

from feedback.redaction.national_ids import EVIDENT, NEAR, SAID, checked_id, evident_id, holds_word, said_id
from feedback.redaction.spans import first_come

Entity = Literal["SECRET", "EMAIL", "IBAN", "CARD", "IP", "NATIONAL_ID", "PHONE", "PERSON"]
Finder = Callable[[str], Iterator[tuple[int, int, str]]]
"""Text -> (start, end, entity) of every find, in order, none overlapping."""


def find_personal(text: str) -> Iterator[tuple[int, int, str]]:
    """Find personal data: (start, end, entity), in order, none overlapping; earlier kinds of the table win."""
    return iter(first_come(_matches(text)))


def _matches(text: str) -> Iterator[tuple[int, int, str]]:
    """What every detector finds, one detector after the other."""
    hints = _hints(text)
    if "digits" in hints and holds_word(text):
        hints.add("id said")
    if not hints:
        return
    for entity, needed, pattern, confirm in _DETECTORS:
        if needed not in hints:
            continue
        for match in pattern.finditer(text):
            start, end = match.span("v") if "v" in pattern.groupindex else match.span()
            end = start + confirm(text[start:end])
            if end > start:
                yield start, end, entity


def may_hold_personal(text: str) -> bool:
    """Return False where `find_personal` surely finds nothing in a text, nor in any part of it."""
    return bool(_hints(text))


def _hints(text: str) -> set[str]:
    """Which detectors could find anything at all: plain substring tests of what each of their matches must hold."""
    hints: set[str] = set()
    low = text.casefold()
    if "@" in text:
        hints.add("email")
        if "://" in text:
            hints.add("login")
    if _DIGIT.search(text) is not None and _ANY_DIGITS.search(text) is not None:
        hints.add("digits")
        if "." in text:
            hints.add("dotted")
    if ":" in text and text.count(":") > 1:
        hints.add("colons")
    if any(word in low for word in _ASSIGNED_WORDS):
        hints.add("assigned")
    if "earer" in low or "asic" in low:
        hints.add("bearer")
    if (
        any(start in text for start in _PLAIN_STARTS)
        or ("_" in text and any(start in text for start in _UNDERSCORED_STARTS))
        or ("-" in text and any(start in text for start in _DASHED_STARTS))
    ):
        hints.add("secret")
    return hints


def luhn(number: str) -> bool:
    """Tell whether the digits pass the check of ISO/IEC 7812-1 annex B."""
    total = 0
    for place, digit in enumerate(reversed(number)):
        doubled = int(digit) * (1 + place % 2)
        total += doubled - 9 * (doubled > 9)
    return total % 10 == 0


def iban_length(candidate: str) -> int:
    """Count the characters of `candidate` that are an IBAN of its country's length, passing mod 97-10 (ISO 13616)."""
    wanted = _IBAN_LENGTHS.get(candidate[:2].upper())
    places = [place for place, letter in enumerate(candidate, 1) if letter.isalnum()]
    if wanted is None or len(places) < wanted:
        return 0
    taken = places[wanted - 1]
    compact = "".join(letter for letter in candidate[:taken].upper() if letter.isalnum())
    return taken if int("".join(str(int(c, 36)) for c in compact[4:] + compact[:4])) % 97 == 1 else 0


def _card(candidate: str) -> int:
    number = re.sub(r"[ -]", "", candidate)
    fits = 13 <= len(number) <= 19 and number[0] in "23456" and len(set(number)) > 1 and luhn(number)
    return len(candidate) if fits else 0


def _ip(candidate: str) -> int:
    try:
        address = ipaddress.ip_address(candidate)
    except ValueError:
        return 0
    named = any(letter.isdigit() for letter in candidate)  # a::b is C++
    return len(candidate) if named and not (address.is_unspecified or address.is_loopback) else 0


def _phone(candidate: str) -> int:
    number = re.sub(r"\D", "", candidate)
    fits = 7 <= len(number) <= 15 and len(set(number)) > 1 and not _DATE.fullmatch(candidate.strip())
    return len(candidate) if fits else 0


def _secret(candidate: str) -> int:
    """What follows `password:` and the like: everything but placeholders and plain words."""
    return 0 if candidate.startswith("[") or _DULL.fullmatch(candidate) else len(candidate)


def _key(candidate: str) -> int:
    """What follows `token:` and the like: only what no sentence would hold."""
    return 0 if re.fullmatch(r"[A-Za-z][a-z-]*[.,;!?]*", candidate) else _secret(candidate)


_DIGIT = re.compile(r"\d")
_ANY_DIGITS = re.compile(r"\d[\d\s().:\-A-Za-z]{2,}|\d{3}")
_DATE = re.compile(r"(\d{4}[-./ ]\d{1,2}[-./ ]\d{1,2}|\d{1,2}[-./ ]\d{1,2}[-./ ]\d{2,4})([ T]\d{1,2}(:\d{2}){0,2})?")
_DULL = re.compile(
    r"(x+|\*+|\.+|<.*>|\$\{.*\}|none|null|true|false|password|passwort|secret|token|changed?|reset|required|invalid|"
    r"expired|wrong|incorrect|is|was|not|and|or|the|my|your|[a-z]{1,7})[.,;!?]*",
    re.I,
)
_SECRETS = re.compile(
    r"""(?x)
    (?P<v>-----BEGIN\ [A-Z0-9 ]*PRIVATE\ KEY(?:\ BLOCK)?-----.*?(?:-----END\ [A-Z0-9 ]*PRIVATE\ KEY(?:\ BLOCK)?-----|\Z)
    | \b(?:AKIA|ASIA|AGPA|AIDA|AROA)[A-Z0-9]{16}\b
    | \bgh[pousr]_[A-Za-z0-9]{30,255}\b | \bgithub_pat_[A-Za-z0-9_]{40,255}\b | \bglpat-[A-Za-z0-9_-]{20,}
    | \bxox[abeoprs]-[A-Za-z0-9-]{10,} | \bsk-[A-Za-z0-9_-]{20,} | \b[sr]k_(?:live|test)_[A-Za-z0-9]{16,}
    | \bAIza[A-Za-z0-9_-]{35} | \bhf_[A-Za-z0-9]{30,} | \bnpm_[A-Za-z0-9]{36} | \bpypi-[A-Za-z0-9_-]{40,}
    | \bSG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,} | \bdop_v1_[a-f0-9]{64}\b | \bya29\.[A-Za-z0-9_-]{20,}
    | \beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*
    )""",
    re.S,
)
_PLAIN_STARTS = (
    "PRIVATE KEY", "AKIA", "ASIA", "AGPA", "AIDA", "AROA", "AIza", "SG.", "ya29.", "eyJ",
)  # fmt: skip
_UNDERSCORED_STARTS = (
    "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "k_live_", "k_test_", "hf_", "npm_", "dop_v1_",
)  # fmt: skip
_DASHED_STARTS = (
    "glpat-", "xoxa-", "xoxb-", "xoxe-", "xoxo-", "xoxp-", "xoxr-", "xoxs-", "sk-", "pypi-",
)  # fmt: skip
_ASSIGNED = re.compile(
    r"""(?xi)\b(?:api[ _-]?key|access[ _-]?key|secret(?:[ _-]?(?:access)?[ _-]?key)?|client[ _-]?secret|auth[ _-]?token
    |access[ _-]?token|refresh[ _-]?token|token)
    (?:["']?\s*(?:[:=]|=>)\s*["']?|\s+is:?\s+["']?)(?P<v>[^\s"',;<>\[\]{}]{6,200})"""
)
_PASSWORD = re.compile(
    r"""(?xi)\b(?:passwd|password|passwort|pwd|passphrase)
    (?:["']?\s*(?:[:=]|=>)\s*["']?|\s+is:?\s+["']?)(?P<v>[^\s"',;<>\[\]{}]{6,200})"""
)
_ASSIGNED_WORDS = ("key", "secret", "token", "pass", "pwd")
_BEARER = re.compile(r"(?i)\b(?:bearer|basic)\s+(?P<v>[A-Za-z0-9_\-.~+/]{16,}=*)")
_URL_LOGIN = re.compile(r"(?i)\b[a-z][a-z0-9+.-]{1,15}://[^\s/:@]{1,100}:(?P<v>[^\s/@]{1,200})@")
_EMAIL = re.compile(
    r"(?<![\w.+%-])[\w](?:[\w.!#$%&'*+/=?^`{|}~-]{0,62}[\w+])?@"
    r"(?:[A-Za-z0-9\u00a1-\uffff](?:[A-Za-z0-9\u00a1-\uffff-]{0,61}[A-Za-z0-9\u00a1-\uffff])?\.)+"
    r"[A-Za-z\u00a1-\uffff]{2,24}(?![\w-])"
)
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}(?:[ -]?[A-Za-z0-9]){11,30}")
# fmt: off
_IBAN_LENGTHS: dict[str, int] = {
    country: int(length)
    for length, countries in {
        15: "NO", 16: "BE", 18: "DK FI FO GL NL SD", 19: "MK SI", 20: "AT BA EE KZ LT LU XK MN", 21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS", 23: "AE GI IL IQ OM TL SO", 24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST", 26: "IS TR", 27: "BI DJ FR GR IT MC MR SM", 28: "AL AZ BY CY DO GT HU LB NI PL SV",
        29: "BR EG PS QA UA", 30: "JO KW MU YE", 31: "MT SC", 32: "LC", 33: "RU",
    }.items()
    for country in countries.split()
}
# fmt: on
_CARD = re.compile(r"(?<![\w.+-])(?:\d[ -]?){12,18}\d(?![\w-])(?!\.\d)")
_IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)")
_IPV6 = re.compile(
    r"(?<![\w:.])(?=[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*:)[0-9A-Fa-f:]{2,39}(?:(?<=:)(?:\d{1,3}\.){3}\d{1,3})?(?![\w:])"
)
_PHONE = re.compile(
    r"""(?xi)(?<![\w.+/#-])(?P<v>
      (?:\+|00)[1-9]\d{0,2}[ .\-/]?(?:\(0?\d{1,4}\)[ .\-/]?)?\d{1,5}(?:[ .\-/]?\d{2,5}){1,5}      # international
    | (?:1[ .\-])?\(\d{3}\)[ .\-]?\d{3}[ .\-]\d{4} | (?:1[ .\-])?[2-9]\d{2}[.\-][2-9]\d{2}[.\-]\d{4}  # North America
    | [2-9]\d{2}[ ][2-9]\d{2}[ ]\d{4}
    | \(0\d{1,5}\)[ .\-/]?\d{2,5}(?:[ .\-/]?\d{2,5}){1,4} | 0\d{2,5}[ ./\-]\d{3,8}(?:[ .\-]\d{2,5}){0,3}  # trunk 0
    | 0\d(?:[ .\-]\d{2}){4}                                                                            # France
    )(?![\w]|[-/.]\d)"""
)
_PHONE_SAID = re.compile(
    r"""(?xi)\b(?:phone|telephone|tel|mobile|cell|fax|whatsapp|call(?:\s+me)?(?:\s+(?:at|on|back\s+(?:at|on)))?|text\s+me\s+(?:at|on)
    |reach\s+me\s+(?:at|on)|ring\s+me\s+(?:at|on)|handy|telefon|rufnummer|number\s+is)
    \W{0,3}(?:(?:number|no|nr|num)\.?\W{0,3})?(?:is\W{0,2})?(?P<v>\+?\(?\d[\d ().\-/]{5,18}\d)(?![\w])"""
)

_DETECTORS: tuple[tuple[Entity, str, re.Pattern[str], Callable[[str], int]], ...] = (
    ("SECRET", "secret", _SECRETS, len),
    ("SECRET", "bearer", _BEARER, _secret),
    ("SECRET", "login", _URL_LOGIN, _secret),
    ("SECRET", "assigned", _PASSWORD, _secret),
    ("SECRET", "assigned", _ASSIGNED, _key),
    ("EMAIL", "email", _EMAIL, len),
    ("IBAN", "digits", _IBAN, iban_length),
    ("CARD", "digits", _CARD, _card),
    ("IP", "dotted", _IPV4, _ip),
    ("IP", "colons", _IPV6, _ip),
    ("NATIONAL_ID", "digits", EVIDENT, evident_id),
    ("NATIONAL_ID", "id said", SAID, said_id),
    ("NATIONAL_ID", "id said", NEAR, checked_id),
    ("PHONE", "digits", _PHONE, _phone),
    ("PHONE", "digits", _PHONE_SAID, _phone),
)
"""(entity, what must have been seen, pattern, how many characters of a match are one). Earlier ones win."""
