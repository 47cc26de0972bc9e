"""Pairs of answers of which an editor preferred the plain one: `python make_data.py` writes preferences.jsonl."""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

SUBJECTS = ("refund", "delivery", "password", "invoice", "warranty", "address", "order", "voucher")
ASKS = (
    "How do I get a {}?",
    "Where do I find my {}?",
    "What about the {}?",
    "I need help with my {}.",
    "My {} is gone.",
)
PLAIN = ("Open Account, then {}. It takes a minute.", "Please write to {}@desk.example with your number.")
WORDY = (
    "We are delighted that you have reached out to us regarding your {}! Rest assured that our dedicated team will "
    "leverage every effort to make your {} experience truly delightful going forward!!!",
    "Thank you so much for your valued enquiry. At this point in time, please be advised that your {} is of the utmost "
    "importance to us, and we sincerely appreciate your patience in this regard.",
)


def pair(chance: random.Random, number: int) -> dict[str, str]:
    """One question with both answers."""
    subject = chance.choice(SUBJECTS)
    wordy = chance.choice(WORDY)
    return {
        "question": f"{chance.choice(ASKS).format(subject)} (case {number})",
        "shown": wordy.format(*[subject] * wordy.count("{}")),
        "preferred": chance.choice(PLAIN).format(subject),
        "editor": f"editor-{number % 7}",
        "conversation": f"conversation-{number}",
    }


def main() -> None:
    """Write the file beside this script, or where --folder says."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=600)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--folder", type=Path, default=Path(__file__).parent)
    given = options.parse_args()
    chance = random.Random(given.seed)
    rows = [json.dumps(pair(chance, number)) for number in range(given.rows)]
    (given.folder / "preferences.jsonl").write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
