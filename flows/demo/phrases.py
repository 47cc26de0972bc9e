"""List the phrases of the demo's support desk, of which tickets are made.

Each table maps a meaning to its wordings. The *early* wordings are in use from the first day; the *late* ones only
turn up in tickets written after the first night, so a model that memorised phrases instead of meanings loses points
on live traffic.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Wordings:
    """How one meaning is put into words: `early` from the start, `late` only after the first night."""

    early: tuple[str, ...]
    late: tuple[str, ...]


PRODUCTS: dict[str, Wordings] = {
    "router": Wordings(("router", "wifi router", "mesh router"), ("internet router",)),
    "camera": Wordings(("camera", "door camera", "security camera"), ("video camera",)),
    "watch": Wordings(("watch", "smart watch", "fitness watch"), ("sports watch",)),
    "speaker": Wordings(("speaker", "kitchen speaker", "bluetooth speaker"), ("music speaker",)),
    "lamp": Wordings(("lamp", "desk lamp", "smart lamp"), ("reading lamp",)),
}
"""Product code -> what people call it."""

PROBLEMS: dict[str, Wordings] = {
    "billing": Wordings(
        (
            "I was charged twice for my {p}",
            "the invoice for the {p} shows the wrong amount",
            "my refund for the {p} has still not reached my bank",
            "the discount code was not applied when I paid for the {p}",
        ),
        ("there are two payments on my card for one {p}", "the bill for the {p} is too high"),
    ),
    "delivery": Wordings(
        (
            "my {p} has not arrived",
            "the parcel with the {p} seems to be lost",
            "tracking for the {p} has been stuck for a week",
            "the courier left the {p} at the wrong address",
        ),
        ("I am still waiting for the postman to bring the {p}", "the package with the {p} never came"),
    ),
    "defect": Wordings(
        (
            "the {p} stopped working",
            "my {p} does not turn on any more",
            "the {p} came out of the box with a crack in it",
            "the {p} keeps restarting by itself",
        ),
        ("the {p} is broken", "the {p} switches itself off all the time"),
    ),
    "account": Wordings(
        (
            "I cannot log in to the app for my {p}",
            "the password reset for the {p} app never comes",
            "my login is locked after setting up the {p}",
            "please delete the profile I made for the {p}",
        ),
        ("signing in to the {p} app fails", "I forgot the password for the {p} app"),
    ),
    "question": Wordings(
        (
            "how do I pair the {p} with my phone?",
            "where can I find the manual of the {p}?",
            "can I use the {p} outdoors?",
            "how long is the warranty on the {p}?",
        ),
        ("which cable do I need for the {p}?", "what is the range of the {p}?"),
    ),
}
"""Type -> what goes wrong, with {p} where the product's name goes."""

URGENCY: dict[str, Wordings] = {
    "normal": Wordings(("", "", "", "There is no rush."), ("", "It can wait.")),
    "high": Wordings(("This is urgent.", "Please hurry.", "It is an emergency."), ("This is very urgent.",)),
}
"""Priority -> the sentence that gives it away."""

HUMAN: dict[bool, Wordings] = {
    True: Wordings(
        ("Please call me.", "I want to talk to a person.", "Let a manager call me."), ("Please have somebody call me.",)
    ),
    False: Wordings(("", "", "", "Please answer by mail."), ("", "A short mail will do.")),
}
"""Whether a person must take over -> the sentence that asks for it."""

MOODS = Wordings(
    ("", "", "", "", "", "", "I am really disappointed.", "Otherwise I love your shop.", "Not happy about this."),
    ("What a mess.", "My family laughs about it already."),
)
"""How the customer feels: says nothing about the right triage."""

ASIDES = Wordings(
    (
        *("", "", "", "", "", ""),
        "My {other} works fine.",
        "My neighbour has the same {other} and is happy.",
        "The tracking number is TR-{number}.",
        "The serial number reads SN-{number}.",
        "It was a birthday gift for my sister.",
    ),
    ("The label says LOT-{number}.", "I also looked at the {other} but did not take it."),
)
"""Distracting sentences; {other} is another product, {number} a number that is no order."""

ORDERS = Wordings(
    (
        "Order {id}.",
        "My order number is {id}.",
        "It is about order {id}.",
        "Order no. {id}, paid by card.",
        "My earlier order {old} was fine, this is about {id}.",
        "Please look at {id}, not at {old}.",
    ),
    ("Reference {id}.", "You will find it under {id}; {old} is closed."),
)
"""How an order is named; {old} is another order of the same customer that must not be taken."""

GREETINGS = Wordings(("Hi,", "Hello,", "Dear team,", "", "", ""), ("Greetings,", ""))
"""How a ticket begins."""

CLOSINGS = Wordings(("Thanks, {name}", "{name}", "", "", ""), ("Yours, {name}", ""))
"""How a ticket ends."""

NAMES = (
    "Ada", "Bela", "Chen", "Dora", "Emil", "Farah", "Goran", "Hana", "Ines", "Jonas", "Kofi", "Lena", "Milo", "Nora",
    "Omar", "Pia", "Quinn", "Rosa", "Sven", "Tara", "Uma", "Viktor", "Wanda", "Xenia", "Yusuf", "Zoe",
)  # fmt: skip
"""First names customers sign with."""
