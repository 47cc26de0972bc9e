"""What redaction finds in a written corpus: `python -m benchmarks.redaction`

Ratchet's patterns, presidio's recognisers (no model), and both together, on benchmarks/personal_corpus.py. A marked
value counts as found when a find of its kind covers all of it; a find counts as right when it overlaps a marked value
of its kind. Fails when the patterns miss, of the kinds that presidio knows, a value that presidio finds.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable

from benchmarks.personal_corpus import CLEAN, MARKED, parsed
from feedback.redaction.patterns import find_personal
from feedback.redaction.presidio import presidio_finder
from feedback.redaction.redact import find_both

Finder = Callable[[str], Iterable[tuple[int, int, str]]]


def measured(find: Finder) -> tuple[Counter[str], Counter[str], Counter[str], Counter[str], set[tuple[int, int, str]]]:
    """(marked, found, right finds, finds) by kind, and the marked values that were found, by line."""
    marked: Counter[str] = Counter()
    found: Counter[str] = Counter()
    right: Counter[str] = Counter()
    finds: Counter[str] = Counter()
    seen = set()
    for number, line in enumerate([*MARKED, *CLEAN]):
        text, spans = parsed(line)
        hits = list(find(text))
        for start, end, kind in spans:
            marked[kind] += 1
            if any(s <= start and e >= end and k == kind for s, e, k in hits):
                found[kind] += 1
                seen.add((number, start, kind))
        for s, e, kind in hits:
            finds[kind] += 1
            right[kind] += any(s < end and e > start and k == kind for start, end, k in spans)
    return marked, found, right, finds, seen


def main() -> int:
    """Print the table; 1 when the patterns miss what presidio finds."""
    presidio = presidio_finder()
    finders: dict[str, Finder] = {"patterns": find_personal, "presidio": presidio, "both": find_both(presidio)}
    print(f"{len(MARKED)} messages with marked values, {len(CLEAN)} without any\n")
    print(f"{'':10} {'kind':11} {'marked':>7} {'found':>6} {'recall':>7} {'finds':>6} {'right':>6} {'precision':>9}")
    seen = {}
    for name, find in finders.items():
        marked, found, right, finds, seen[name] = measured(find)
        for kind in [*sorted(marked), "all"]:
            m, f, r, n = (c.total() if kind == "all" else c[kind] for c in (marked, found, right, finds))
            precision = f"{r / n:9.0%}" if n else f"{'-':>9}"
            print(f"{name:10} {kind:11} {m:>7} {f:>6} {f / m:>7.0%} {n:>6} {r:>6} {precision}")
        print()
    texts = [parsed(line)[0] for line in [*MARKED, *CLEAN]]
    for name, find in finders.items():
        began = time.process_time()
        for _ in range(5):
            for text in texts:
                list(find(text))
        print(f"{name:10} {5 * len(texts) / (time.process_time() - began):>9,.0f} messages a CPU second")
    missed = seen["presidio"] - seen["patterns"]
    print(f"\nvalues that presidio finds and the patterns miss: {len(missed)}")
    for number, start, kind in sorted(missed):
        print(f"  {kind} at {start} of: {parsed([*MARKED, *CLEAN][number])[0]}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
