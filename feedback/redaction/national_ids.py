"""Recognise national ids: by a form and check digits that little else has, or by the word before them.

EVIDENT forms stand alone: US social security and taxpayer numbers with their dashes, a British national insurance
number with its spaces, Italian fiscal codes, Finnish, French and (punctuated) Brazilian numbers. (One in 23 of all
part numbers of eight digits and a letter passes the check of a Spanish one, so it takes the word.) Whatever is said
right after "passport number" and the like is one whatever its form (SAID), and so is the next number up to 40
characters after such a word, where it passes the check of a country's numbers (NEAR): British NHS, German tax, Polish
PESEL, Indian Aadhaar, Australian tax file, and Dutch BSN numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date

# fmt: off
_WORDS = (
    r"ssn", r"social[ -](?:security|insurance)", r"national (?:insurance|id(?:entity|entification)?(?: card)?)",
    r"identity (?:card|number|code)", r"id card", r"taxpayer id(?:entification)?", r"itin",
    r"tax (?:id(?:entification)?|file)", r"nhs", r"medicare", r"passport", r"passeport", r"pasaporte",
    r"passaporto", r"paszportu?", r"reisepass(?:nummer)?", r"passnummer", r"driv(?:er['’]?s?|ing) licen[cs]e",
    r"führerschein(?:nummer)?", r"permis de conduire", r"patente di guida", r"personalausweis(?:nummer)?",
    r"ausweis(?:nummer)?", r"steuer[ -]?(?:id|idnr|identifikationsnummer|nummer)", r"sozialversicherungsnummer",
    r"rentenversicherungsnummer", r"krankenversicherungsnummer", r"numéro de sécurité sociale",
    r"carte (?:nationale )?d['’]identité", r"carta d['’]identità", r"codice fiscale", r"pesel",
    r"dow[oó]du?(?: osobist(?:y|ego))?", r"aadhaa?r", r"burgerservicenummer", r"personnummer", r"henkilötunnus",
    r"nric",
)
"""Words, in large or small letters, after which a number is somebody's."""
_STEMS = (
    "ssn", "social", "national i", "identi", "id card", "tax", "itin", "nhs", "medicare", "pass", "pasaporte",
    "paszport", "licen", "führersch", "permis de", "patente di", "ausweis", "steuer", "nummer", "sécurit", "codice",
    "pesel", "dow", "aadha", "henkil", "nric",
)
"""What the small letters of each of them hold at least one of."""
# fmt: on
_ACRONYMS = ("NINO", "TIN", "SIN", "TFN", "PAN", "DNI", "NIE", "NIF", "BSN", "CPF", "CURP", "HETU", "NIR", "IdNr")
"""Words that count in this spelling only: in small letters most are parts of other words."""
# Each starts with a set of characters: the engine passes over places that begin with none of them.
WORD = rf"\b(?:{'|'.join([*(f'[{w[0]}{w[0].upper()}](?i:{w[1:]})' for w in _WORDS), *_ACRONYMS])})(?!\w)"
_FILL = (
    r"\W{0,3}(?:(?i:card|number|no|nr|num|nummer|número|numero|numéro|numer|code)(?!\w)\.?\W{0,3}){0,2}"
    r"(?:(?i:is|was|ist|lautet|es|est|è|to)(?!\w)\W{0,3})?"
)
_SHUT = r"(?!\w|[-/.]\d)"

SAID = re.compile(
    WORD + _FILL + r"(?P<v>(?:[A-Z]{1,5}[ -])?[A-Za-z]{0,6}\d[\dA-Za-z]{0,15}(?:[ ./-]\d[\dA-Za-z]{0,7}){0,5}"
    rf"(?:[ -][A-Z])?){_SHUT}"
)
"""A number right after such a word; confirm with `said_id`."""
NEAR = re.compile(WORD + rf"[^\d\n]{{0,40}}?(?P<v>\d(?:[ .-]?\d){{8,11}}){_SHUT}")
"""The first number after such a word; confirm with `checked_id`."""


def holds_word(text: str) -> bool:
    """False where a text surely holds no word that SAID or NEAR begin with."""
    low = text.casefold()
    return any(stem in low for stem in _STEMS) or any(word in text for word in _ACRONYMS)


_NO_ID = re.compile(
    r"\d{1,4}[-./ ]\d{1,2}[-./ ]\d{1,4}"  # a date
    r"|(?:19|20)\d\d[-/](?:(?:19|20)\d\d|\d\d)"  # years
    r"|\d+\.\d+"  # a decimal, or the beginning of a DOI
    r"|\d+[xX]\d+"  # a size
    r"|\d+000"  # a round number
)
"""What is said after such words and is no number of anybody."""


def said_id(candidate: str) -> int:
    """Length of what is said right after a word; 0 where it has too few digits or is plainly something else."""
    digits, places = (sum(map(kind, candidate)) for kind in (str.isdigit, str.isalnum))
    if digits < 4 or (digits == 4 and places < 8) or _NO_ID.fullmatch(candidate):
        return 0
    return len(candidate)


def checked_id(candidate: str) -> int:
    """Length of a number that passes the check of some country's numbers of so many digits, else 0."""
    digits = [int(c) for c in candidate if c.isdigit()]
    return len(candidate) if any(check(digits) for check in _CHECKS.get(len(digits), ())) else 0


def evident_id(candidate: str) -> int:
    """Length of a match of EVIDENT whose dates and check characters are right, else 0."""
    for pattern, check in _EVIDENT_FORMS:
        if pattern.fullmatch(candidate) and check(re.sub(r"[ .-]", "", candidate)):
            return len(candidate)
    return 0


def _weighted(digits: Sequence[int], weights: Sequence[int]) -> int:
    return sum(digit * weight for digit, weight in zip(digits, weights, strict=False))


def _nhs(d: Sequence[int]) -> bool:
    return _weighted(d, range(10, 0, -1)) % 11 == 0


def _tax_file(d: Sequence[int]) -> bool:
    return _weighted(d, (1, 4, 3, 7, 5, 8, 6, 9, 10)) % 11 == 0


def _bsn(d: Sequence[int]) -> bool:
    return _weighted(d, (9, 8, 7, 6, 5, 4, 3, 2, -1)) % 11 == 0


def _pesel(d: Sequence[int]) -> bool:
    return _weighted(d, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1)) % 10 == 0


def _german_tax(d: Sequence[int]) -> bool:
    """ISO/IEC 7064 mod 11,10."""
    product = 10
    for digit in d[:10]:
        product = 2 * ((digit + product) % 10 or 10) % 11
    return d[0] != 0 and (11 - product) % 10 == d[10]


def _aadhaar(d: Sequence[int]) -> bool:
    """Verhoeff's check, by the multiplication of the dihedral group of ten."""
    permutation = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)
    check = 0
    for place, digit in enumerate(reversed(d)):
        for _ in range(place % 8):
            digit = permutation[digit]
        if check < 5:
            check = (check + digit) % 5 if digit < 5 else (check + digit) % 5 + 5
        else:
            check = (check - digit) % 5 + 5 if digit < 5 else (check - digit) % 5
    return d[0] > 1 and check == 0


_CHECKS: Mapping[int, tuple[Callable[[Sequence[int]], bool], ...]] = {
    9: (_tax_file, _bsn),
    10: (_nhs,),
    11: (_pesel, _german_tax),
    12: (_aadhaar,),
}


def _form(_: str) -> bool:
    return True


def _italian(value: str) -> bool:
    odd = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23)
    places = [int(c) if c.isdigit() else ord(c) - ord("A") for c in value]
    return sum(p if at % 2 else odd[p] for at, p in enumerate(places[:-1])) % 26 == places[-1]


def _finnish(value: str) -> bool:
    try:
        date(2000 + int(value[4:6]), int(value[2:4]), int(value[:2]))
    except ValueError:
        return False
    return "0123456789ABCDEFHJKLMNPRSTUVWXY"[int(value[:6] + value[-4:-1]) % 31] == value[-1]


def _french(value: str) -> bool:
    number = int(value[:13].replace("2A", "19").replace("2B", "18"))
    return 97 - number % 97 == int(value[13:])


def _brazilian(value: str) -> bool:
    d = [int(c) for c in value]
    return len(set(d)) > 1 and all(_weighted(d, range(n + 1, 1, -1)) * 10 % 11 % 10 == d[n] for n in (9, 10))


_EVIDENT: tuple[tuple[str, Callable[[str], bool]], ...] = (
    (r"(?!000|666|9)[0-9]{3}-(?!00)[0-9]{2}-(?!0000)[0-9]{4}", _form),  # US social security
    (r"9[0-9]{2}-(?:5[0-9]|6[0-5]|7[0-9]|8[0-8]|9[0-24-9])-[0-9]{4}", _form),  # US taxpayer (ITIN)
    (r"(?!BG|GB|NK|KN|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z](?: [0-9]{2}){3} [A-D]", _form),  # British NINO
    (r"[A-Z]{6}[0-9]{2}[A-EHLMPRST][0-9]{2}[A-Z][0-9]{3}[A-Z]", _italian),
    (r"[0-9]{6}[-+A-FU-Y][0-9]{3}[0-9A-FHJ-NPR-Y]", _finnish),
    (r"[12] ?[0-9]{2} ?(?:0[1-9]|1[0-2]) ?(?:[0-9]{2}|2[AB]) ?[0-9]{3} ?[0-9]{3} ?[0-9]{2}", _french),
    (r"[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}", _brazilian),
)
_EVIDENT_FORMS = tuple((re.compile(form), check) for form, check in _EVIDENT)
EVIDENT = re.compile(rf"(?=[A-Z0-9])(?<![\w.+/#-])(?:{'|'.join(form for form, _ in _EVIDENT)}){_SHUT}")
"""What looks like a number of some country; confirm with `evident_id`."""
