"""Activity kept from batch to batch is what adding it all up anew would give."""

from __future__ import annotations

import tempfile
from contextlib import closing
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from feedback.index.activity import ActivityWindow
from feedback.index.ingest_index import IngestIndex
from feedback.index.update import ActorActivity, IndexUpdate

HOURS = st.integers(0, 30)
ROWS = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), HOURS, st.integers(1, 5)), max_size=8)
STEPS = st.lists(st.one_of(ROWS, st.tuples(st.sampled_from("ab"), HOURS, HOURS)), max_size=12)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_whatever_is_learned_and_asked_in_whatever_order(steps: list[object]) -> None:
    with tempfile.TemporaryDirectory() as folder, closing(IngestIndex(Path(folder) / "index.db")) as index:
        batch = 0
        for step in steps:
            if isinstance(step, list):
                batch += 1
                for _ in range(2):  # the second time it teaches nothing
                    index.learn(batch, IndexUpdate(activity=[ActorActivity(*row) for row in step]))
            elif isinstance(step, tuple):
                tenant, since, more = step
                anew = ActivityWindow(index._db).counts(tenant, since, since + more)
                assert index.activity.counts(tenant, since, since + more) == anew


def test_what_is_forgotten_is_counted_no_more(tmp_path: Path) -> None:
    with closing(IngestIndex(tmp_path / "index.db")) as index:
        index.learn(1, IndexUpdate(activity=[ActorActivity("acme", "ann", 5, 3), ActorActivity("acme", "bob", 5, 1)]))
        assert index.activity.counts("acme", 0, 9) == {"ann": 3, "bob": 1}
        index.forget("acme", [], "ann", [])
        assert index.activity.counts("acme", 0, 9) == {"bob": 1}
