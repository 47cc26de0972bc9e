from __future__ import annotations

import copy

from hypothesis import given, settings
from hypothesis import strategies as st

from feedback.text.vocabulary import TokenIndex, words_of

TEXTS = st.lists(st.text(alphabet="abcÄß 12\n.,", max_size=30), max_size=8)


@settings(deadline=None)
@given(TEXTS, TEXTS)
def test_numbers_spell_the_words_of_each_text_wherever_they_are_asked_for(before: list[str], asked: list[str]) -> None:
    book = TokenIndex()
    for text in before:
        assert book.add(text) == words_of(text)
    for one in (book, copy.deepcopy(book)):  # as it travels between processes
        numbers, counts = one.token_ids(asked)
        spelled, rest = one.tokens(), numbers.tolist()
        assert len(spelled) == len(one) == len({word for text in (*before, *asked) for word in words_of(text)})
        for text, count in zip(asked, counts.tolist(), strict=True):
            assert [spelled[number] for number in rest[:count]] == words_of(text)
            rest = rest[count:]
        assert not rest


def test_an_empty_book_is_the_one_that_was_given() -> None:
    """It is false as an empty list is: whoever writes `book or TokenIndex()` splits everything twice."""
    from feedback.duplicates.fingerprints import DedupeConfig, fingerprints_of
    from feedback.events import Message
    from feedback.examples import Example
    from tests.feedback.world import START

    book = TokenIndex()
    prompt = "one two three four five six seven eight"
    example = Example(
        example_id="x", tenant="t", subject="s", shape="completion", messages=(Message(role="user", content=prompt),),
        completion="yes", group="g", reason="edit", created_at=START,
    )  # fmt: skip
    fingerprints_of([example], DedupeConfig(), book)
    assert len(book) == 8
