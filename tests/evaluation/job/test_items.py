"""Gate items that training data hold: as they are, by group, and nearly."""

from __future__ import annotations

import json
from pathlib import Path

from evaluation.job.items import Contamination, find_contamination
from feedback.events import Message
from feedback.snapshots.gate_items import GateItem

QUESTION = "How do I return the blue kettle that I bought in your shop in {place} last week?"


def item(name: str, question: str) -> GateItem:
    return GateItem(
        item_id=name,
        group=name,
        messages=(Message(role="user", content=question),),
        reference="By post, within a month.",
    )


def test_copies_are_counted_by_how_near_they_are(tmp_path: Path) -> None:
    items = [
        item("same", QUESTION.format(place="Bonn")),
        item("near", "Please tell me, word for word, " + QUESTION.format(place="Rome")),
        item("group", "What is a kettle?"),
        item("short", "Where is it?"),
        item("clean", "Which museums of the old town are open on the first Monday in November?"),
    ]
    polite = {"role": "system", "content": "Be kind."}
    rows = [
        {"group": "x", "messages": [{"role": "user", "content": QUESTION.format(place="Bonn")}]},
        {"group": "y", "messages": [{"role": "user", "content": "please tell me word for word: " + QUESTION[:50]}]},
        {"group": "z", "messages": [{"role": "user", "content": items[1].messages[0].content + " Thanks"}]},
        {"group": "group", "shape": "document", "text": "Kettles."},
        {"group": "w", "messages": [polite, {"role": "user", "content": "where is it"}]},
    ]  # fmt: skip
    training = tmp_path / "train.jsonl"
    training.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert find_contamination(items, [training]) == Contamination(same=2, near=2)
    assert find_contamination(items, ()) is None
