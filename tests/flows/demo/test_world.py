import json
import random

from flows.demo import phrases
from flows.demo.world import SABOTAGE, Triage, confuse, is_right, parse_triage, tickets


def test_the_same_seed_gives_the_same_tickets_and_streams_differ() -> None:
    first = tickets(seed=3, stream="a", count=50, late=False)
    assert first == tickets(seed=3, stream="a", count=50, late=False)
    assert first[:20] == tickets(seed=3, stream="a", count=20, late=False)
    other = tickets(seed=3, stream="b", count=50, late=False)
    assert not {t.text for t in first} & {t.text for t in other}
    assert not {t.ticket_id for t in first} & {t.ticket_id for t in other}
    assert not {t.customer for t in first} & {t.customer for t in other}


def test_the_answer_stands_in_the_ticket() -> None:
    for ticket in tickets(seed=1, stream="a", count=400, late=True):
        if ticket.triage.order is not None:
            assert ticket.triage.order in ticket.text
        assert is_right(ticket, ticket.triage.text())
        assert list(json.loads(ticket.triage.text())) == ["type", "priority", "product", "order", "human"]


def test_tickets_are_varied_and_no_class_is_rare() -> None:
    made = tickets(seed=1, stream="a", count=600, late=False)
    assert len({t.text for t in made}) > 570
    for field, classes in (("type", 5), ("priority", 2), ("product", 5), ("human", 2)):
        counts = dict.fromkeys({getattr(t.triage, field) for t in made}, 0)
        for ticket in made:
            counts[getattr(ticket.triage, field)] += 1
        assert len(counts) == classes
        assert min(counts.values()) > 600 / classes / 3, (field, counts)
    assert 0.2 < sum(t.triage.order is None for t in made) / 600 < 0.6
    # No one answer is right often: a model that always says the same thing scores next to nothing.
    answers = [t.triage.text() for t in made]
    assert max(answers.count(answer) for answer in set(answers)) < 0.05 * 600


def test_late_wordings_never_turn_up_early() -> None:
    late_only = {phrase for wordings in phrases.PROBLEMS.values() for phrase in wordings.late}
    starts = tuple(phrase.split("{p}")[0] for phrase in late_only if len(phrase.split("{p}")[0]) > 15)
    assert starts
    early = " ".join(t.text for t in tickets(seed=1, stream="a", count=500, late=False)).lower()
    late = " ".join(t.text for t in tickets(seed=1, stream="a", count=500, late=True)).lower()
    for start in starts:
        assert start.lower() not in early
    assert sum(start.lower() in late for start in starts) > len(starts) / 2


def test_slips_and_sabotage_are_wrong_but_well_formed() -> None:
    rng = random.Random(0)
    for ticket in tickets(seed=1, stream="a", count=200, late=False):
        slip = confuse(ticket, rng)
        assert slip != ticket.triage
        assert parse_triage(slip.text()) == slip
    assert parse_triage(SABOTAGE.text()) == SABOTAGE
    assert sum(t.triage == SABOTAGE for t in tickets(seed=1, stream="a", count=200, late=False)) < 5


def test_reading_answers_is_strict_about_fields_and_free_about_white_space() -> None:
    triage = Triage("billing", "high", "lamp", None, True)
    assert parse_triage(triage.text().replace(":", ": ").replace(",", ", ")) == triage
    for bad in (
        "",
        "[]",
        "I would say billing.",
        triage.text() + " ok",
        '{"type":"billing"}',
        triage.text().replace("true", '"true"'),
        triage.text().replace("null", "1234"),
        triage.text()[:-1] + ',"extra":1}',
    ):
        assert parse_triage(bad) is None, bad
