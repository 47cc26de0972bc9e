"""List accepted rows that teach two answers to nearly the same prompt, so that a person can say which is right.

Both rows are kept, for nobody knows yet which is wrong. What trusted people say of either answer settles it: a
subject's rows are made anew whenever somebody speaks of it.
"""

from __future__ import annotations

from feedback.duplicates.fingerprints import label_text, prompt_text
from feedback.examples import Example
from feedback.index.ingest_index import IngestIndex
from feedback.lake.frames import example_of
from feedback.lake.lake import Lake
from infra.settings import Config


class Side(Config):
    """One of the two rows."""

    example_id: str
    """The row."""
    subject: str
    """Interaction (or document event) it was made from."""
    prompt: str
    """What was asked."""
    says: str
    """What the row teaches; a preference says what is better than what."""
    trusted: bool
    """Whether trusted people stand behind it."""


class Contradiction(Config):
    """Two accepted rows of one shape with nearly the same prompt and different answers."""

    shape: str
    """Shape of both."""
    later: Side
    """The row that came later."""
    earlier: Side
    """The row that was there."""


def contradictions(lake: Lake, tenant: str, *, last: int | None = None) -> tuple[list[Contradiction], int]:
    """List a tenant's contradictions as things stand, the latest first, at most `last`; and count them all.

    Pairs of which one row is accepted no more, because its subject was spoken of again, are none any longer.
    """
    import polars as pl

    if not lake.index_path.exists():
        return [], 0
    index = IngestIndex(lake.index_path)
    try:
        pairs = index.examples.contradictions(tenant)
    finally:
        index.close()
    if not pairs:
        return [], 0
    frame = lake.current(tenant=tenant)
    there = set(frame["example_id"])
    accepted = [pair for pair in pairs if there.issuperset(pair)]
    shown = accepted[:last]
    wanted = {name for pair in shown for name in pair}
    rows = frame.filter(pl.col("example_id").is_in(sorted(wanted))).iter_rows(named=True)
    examples = {row["example_id"]: example_of(row) for row in rows}
    listed = [
        Contradiction(shape=examples[later].shape, later=_side(examples[later]), earlier=_side(examples[earlier]))
        for later, earlier in shown
    ]
    return listed, len(accepted)


def _side(example: Example) -> Side:
    if example.shape == "preference":
        says = f"{example.chosen} > {example.rejected}"
    elif example.shape == "rated":
        says = f"{'good' if example.good else 'bad'}: {example.completion}"
    else:
        says = example.completion or example.reference or label_text(example)
    return Side(
        example_id=example.example_id,
        subject=example.subject,
        prompt=prompt_text(example),
        says=says,
        trusted=example.trusted,
    )
