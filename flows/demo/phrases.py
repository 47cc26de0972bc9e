"""The words of the demo's support desk: every phrase a ticket can be made of.

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
    "router": Wordings(("router", "mesh router", "wifi router", "NetHub router"), ("wifi box", "internet hub")),
    "camera": Wordings(
        ("camera", "door camera", "security camera", "ClearView cam"), ("doorbell cam", "video monitor")
    ),
    "watch": Wordings(("watch", "smart watch", "fitness watch", "PulseTime watch"), ("wrist tracker", "smartwatch")),
    "speaker": Wordings(("speaker", "kitchen speaker", "bluetooth speaker", "SoundCube"), ("sound box", "loudspeaker")),
    "lamp": Wordings(("lamp", "desk lamp", "smart lamp", "GlowBar lamp"), ("bedside light", "reading light")),
}
"""Product code -> what people call it."""

PROBLEMS: dict[str, Wordings] = {
    "billing": Wordings(
        (
            "I was charged twice for my {p}",
            "the invoice for the {p} shows the wrong amount",
            "my refund for the {p} has still not reached my bank",
            "the discount code was not applied when I paid for the {p}",
            "you took money for a {p} that I had cancelled",
            "my card statement shows a fee for the {p} that nobody mentioned",
            "I need a corrected receipt for the {p} with our tax number",
        ),
        (
            "there are two payments on my card for one {p}",
            "I paid more for the {p} than the shop page said",
            "the money for the returned {p} is missing on my account statement",
        ),
    ),
    "delivery": Wordings(
        (
            "my {p} has not arrived",
            "the parcel with the {p} seems to be lost",
            "tracking for the {p} has been stuck for a week",
            "the courier left the {p} at the wrong address",
            "I received someone else's box instead of the {p}",
            "the {p} was supposed to come on Monday and nobody showed up",
            "the package with my {p} was sent back before I could collect it",
        ),
        (
            "I am still waiting for the postman to bring the {p}",
            "the shipment of the {p} shows no movement",
            "the driver says the {p} was handed over but I have nothing",
        ),
    ),
    "defect": Wordings(
        (
            "the {p} stopped working",
            "my {p} does not turn on any more",
            "the {p} came out of the box with a crack in it",
            "the {p} keeps restarting by itself",
            "one button of the {p} is dead",
            "the {p} loses its connection every few minutes",
            "the battery part of the {p} gives up after an hour",
        ),
        (
            "the {p} is broken",
            "the {p} switches itself off all the time",
            "the housing of the {p} is split",
        ),
    ),
    "account": Wordings(
        (
            "I cannot log in to the app for my {p}",
            "the password reset mail for the {p} app never comes",
            "my login is locked after setting up the {p}",
            "I want to move the {p} to another user profile",
            "please delete the profile I made for the {p}",
            "the {p} app says my user name does not exist",
            "I lost my second factor and cannot open the {p} settings online",
        ),
        (
            "signing in for the {p} fails with wrong credentials",
            "I am shut out of my profile for the {p}",
            "the code to confirm my login for the {p} is never sent",
        ),
    ),
    "question": Wordings(
        (
            "how do I pair the {p} with my phone?",
            "does the {p} work with 5 GHz networks?",
            "where can I find the manual of the {p}?",
            "can I use the {p} outdoors?",
            "how long is the warranty on the {p}?",
            "is the {p} available in white?",
            "which cable do I need for the {p}?",
        ),
        (
            "is there a guide for setting up the {p}?",
            "what is the range of the {p}?",
            "would the {p} be fine in a bathroom?",
        ),
    ),
}
"""Category -> what goes wrong, with {p} where the product's name goes."""

URGENCY: dict[str, Wordings] = {
    "low": Wordings(
        (
            "No rush at all.",
            "Whenever you find the time.",
            "It can wait until next month.",
            "This is not important, just curious.",
            "Take your time with it.",
        ),
        ("Any day will do.", "There is no hurry on my side."),
    ),
    "normal": Wordings(("",), ("",)),
    "high": Wordings(
        (
            "I need this solved by Friday.",
            "We leave on holiday in two days, so please be quick.",
            "My father depends on it, please treat it first.",
            "I have to present it to a client this week.",
            "The deadline is tomorrow.",
        ),
        ("It has to be done before the weekend.", "Please hurry, the party is in three days."),
    ),
    "urgent": Wordings(
        (
            "Our clinic is completely down because of this.",
            "Nobody in our office can work until it is solved.",
            "It is an emergency.",
            "We lose customers every minute.",
        ),
        ("Our whole shop is standing still because of it.", "This cannot wait even an hour."),
    ),
}
"""Priority -> the sentence that gives it away; a ticket without one is normal."""

HAZARDS = Wordings(
    (
        "There is smoke coming out of it.",
        "It got so hot that it burned my hand.",
        "Sparks flew when I plugged it in.",
        "It gave me an electric shock.",
    ),
    ("It smells of burning plastic.", "The plug has melted."),
)
"""What makes a defect urgent without the customer saying so."""

HUMAN: dict[bool, Wordings] = {
    True: Wordings(
        (
            "This is the third time I write about it.",
            "Otherwise my lawyer will contact you.",
            "I want to talk to a real person.",
            "Please have a manager call me.",
            "Your chat bot was no help, give me somebody who can decide.",
        ),
        ("I have told four of your colleagues already.", "I will take this to the consumer court."),
    ),
    False: Wordings(
        (
            "",
            "",
            "",
            "A short answer by mail is fine.",
            "No need to call me.",
            "This is the first time I write to you.",
        ),
        ("", "", "An automatic reply is enough."),
    ),
}
"""Whether somebody must take over -> the sentence that says so; urgent tickets go to a person in any case."""

MOODS = Wordings(
    (
        "",
        "",
        "",
        "",
        "",
        "",
        "I am really disappointed.",
        "Otherwise I love your shop.",
        "Honestly this spoils my week.",
        "You were always great before.",
        "I expected better from you.",
        "Not happy about this.",
    ),
    ("What a mess.", "My family laughs about it already."),
)
"""How the customer feels: says nothing about the right triage."""

ASIDES = Wordings(
    (
        "",
        "",
        "",
        "",
        "",
        "",
        "The {other} I bought with it is great.",
        "By the way, my {other} works fine.",
        "My neighbour has the same {other} and is happy.",
        "I saw your advert on the bus.",
        "The tracking number is TR-{number}.",
        "The serial number reads SN-{number}.",
        "It was a birthday gift for my sister.",
        "We moved house last month.",
        "I found your shop through a friend.",
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

GREETINGS = Wordings(
    ("Hi,", "Hello,", "Dear team,", "Good morning,", "Hey there,", "", "", ""),
    ("Greetings,", "Hello support,"),
)
"""How a ticket begins."""

CLOSINGS = Wordings(
    ("Thanks, {name}", "Best regards, {name}", "{name}", "Cheers, {name}", "", ""),
    ("Kind wishes, {name}", "Yours, {name}"),
)
"""How a ticket ends."""

NAMES = (
    "Ada", "Bela", "Chen", "Dora", "Emil", "Farah", "Goran", "Hana", "Ines", "Jonas", "Kofi", "Lena", "Milo", "Nora",
    "Omar", "Pia", "Quinn", "Rosa", "Sven", "Tara", "Uma", "Viktor", "Wanda", "Xenia", "Yusuf", "Zoe",
)  # fmt: skip
"""First names customers sign with."""
