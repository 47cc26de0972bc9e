"""Guess the language of a text, well enough to slice by: the script, and for Latin script the stop words."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import lru_cache

_WORD = re.compile(r"[^\W\d_]+")
_STOP_WORDS = {
    "en": "the and is are was to of in my your for not with have this that you it on be can please",
    "de": "der die das und ist nicht ich sie mit für ein eine auf zu mein meine von den bitte wie",
    "fr": "le la les et est pas je vous avec pour un une sur mon ma de des du dans ne que",
    "es": "el la los las y es no con para un una mi de del en que por se lo como",
    "it": "il la gli e è non con per un una mio mia di del in che sono come si lo",
    "pt": "o a os as e é não com para um uma meu minha de do da em que por se",
    "nl": "de het een en is niet ik je met voor op mijn van dat in te zijn er maar",
}
_CODES: dict[str, list[str]] = {}
for _code, _words in _STOP_WORDS.items():
    for _word in dict.fromkeys(_words.split()):
        _CODES.setdefault(_word, []).append(_code)


def language_of(text: str) -> str:
    """Return the ISO 639-1 code of a known Latin-script language, else the script's name, else `unknown`."""
    sample = text[:2_000]
    if sample.isascii():
        script = "latin" if any(map(str.isalpha, sample)) else None
    else:
        scripts = Counter(map(_script, filter(str.isalpha, sample)))
        script = scripts.most_common(1)[0][0] if scripts else None
    if script is None:
        return "unknown"
    if script != "latin":
        return script
    known = [codes for word in _WORD.findall(sample.casefold()) if (codes := _CODES.get(word))]
    if not known:
        return "latin"
    hits = Counter(code for codes in known for code in codes)
    return min(hits, key=lambda code: (-hits[code], code))


@lru_cache(maxsize=10_000)
def _script(letter: str) -> str:
    return unicodedata.name(letter, "UNKNOWN").split()[0].lower()
