"""Tickets of a support desk with the triage that an agent corrected: `python make_data.py` writes corrections.jsonl."""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

KINDS = {
    "billing": ("my invoice shows {amount} euros too much", "you charged me {amount} euros twice", "the bill is wrong"),
    "delivery": ("my parcel is {days} days late", "the courier left order {order} at a neighbour", "nothing arrived"),
    "defect": ("the {product} does not turn on", "the {product} stopped after {days} days", "my {product} is broken"),
    "account": ("I cannot log in", "please change the address of my account", "how do I delete my account?"),
}
PRODUCTS = ("router", "kettle", "lamp", "watch", "printer")


def ticket(chance: random.Random, number: int) -> dict[str, str]:
    """One ticket, what the model said, and what it should have said."""
    kind = chance.choice(list(KINDS))
    product, urgent = chance.choice(PRODUCTS), chance.random() < 0.3
    said = chance.choice(KINDS[kind]).format(
        amount=chance.randint(3, 90),
        days=chance.randint(2, 14),
        order=f"N{chance.randint(1000, 9999)}",
        product=product,
    )
    text = f"{'URGENT: ' if urgent else ''}Hello, {said}. Regards, customer {number}"
    right = {"type": kind, "priority": "high" if urgent else "normal"}
    return {
        "ticket": text,
        "answer": "I am sorry to hear that. How can I help you?",
        "triage": json.dumps(right),
        "customer": f"customer-{number}",
    }


def main() -> None:
    """Write the file beside this script, or where --folder says."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=600)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--folder", type=Path, default=Path(__file__).parent)
    given = options.parse_args()
    chance = random.Random(given.seed)
    rows = [json.dumps(ticket(chance, number)) for number in range(given.rows)]
    (given.folder / "corrections.jsonl").write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
