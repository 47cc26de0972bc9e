"""Activity kept from batch to batch is what adding it all up anew would give."""

from __future__ import annotations

import tempfile
from contextlib import closing
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from feedback.index.activity import ActivityWindow
from feedback.index.delta import Lesson
from feedback.index.index import Past

HOURS = st.integers(0, 30)
ROWS = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), HOURS, st.integers(1, 5)), max_size=8)
STEPS = st.lists(st.one_of(ROWS, st.tuples(st.sampled_from("ab"), HOURS, HOURS)), max_size=12)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_whatever_is_learned_and_asked_in_whatever_order(steps: list[object]) -> None:
    with tempfile.TemporaryDirectory() as folder, closing(Past(Path(folder) / "index.db")) as past:
        batch = 0
        for step in steps:
            if isinstance(step, list):
                batch += 1
                for _ in range(2):  # the second time it teaches nothing
                    past.learn(batch, Lesson(activity=step).as_json())
            elif isinstance(step, tuple):
                tenant, since, more = step
                anew = ActivityWindow(past._db).counts(tenant, since, since + more)
                assert past.activity(tenant, since, since + more) == anew


def test_what_is_forgotten_is_counted_no_more(tmp_path: Path) -> None:
    with closing(Past(tmp_path / "index.db")) as past:
        past.learn(1, Lesson(activity=[("acme", "ann", 5, 3), ("acme", "bob", 5, 1)]).as_json())
        assert past.activity("acme", 0, 9) == {"ann": 3, "bob": 1}
        past.forget("acme", [], "ann", [])
        assert past.activity("acme", 0, 9) == {"bob": 1}
