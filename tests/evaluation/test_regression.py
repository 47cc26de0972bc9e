"""The bundled pack of base abilities: whole, balanced, and answerable by looking at it."""

from __future__ import annotations

import json
from collections import Counter

from evaluation.regression import PACK, pack_tasks


def test_every_document_of_the_pack_is_whole() -> None:
    seen = Counter[str]()
    positions = Counter[int]()
    for task in pack_tasks():
        for line in (PACK / f"{task}.jsonl").read_text().splitlines():
            document = json.loads(line)
            assert set(document) == {"id", "question", "choices", "answer"}
            assert 0 <= document["answer"] < len(document["choices"]) >= 3
            assert len(set(document["choices"])) == len(document["choices"])
            seen[document["id"]] += 1
            positions[document["answer"]] += 1
    assert 40 <= len(seen) <= 60
    assert max(seen.values()) == 1
    assert max(positions.values()) < len(seen) / 2  # the right choice has no favourite place
