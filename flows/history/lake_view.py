"""What `ratchet data` shows: the lake's batches, what two snapshots differ in, a snapshot's rows, an export."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from feedback.erasure.snapshots import erased_rows
from feedback.examples import Example
from feedback.lake.lake import Lake
from feedback.snapshots.snapshot import Snapshot, load_snapshot
from infra.artifact import atomic_write, canonical_json
from infra.errors import NotFound, UserError
from infra.settings import Places


def log_of(lake: Lake, last: int) -> list[dict[str, Any]]:
    """The latest batches, newest first: what each took in and put where."""
    newest = lake.last()
    if newest is None:
        return []
    numbers = range(newest.batch, max(0, newest.batch - last), -1)
    batches = [lake.manifest(number) for number in numbers]
    return [
        {"batch": b.batch, "rows": dict(b.rows), "counts": {s: dict(c) for s, c in b.counts.items()}} for b in batches
    ]


def snapshot_named(places: Places, name: str) -> Snapshot:
    """The snapshot of that name, or of the only one that begins so.

    Raises:
        NotFound: none, or several, are called so.
    """
    found = sorted(path for path in places.snapshots_dir.glob("s-*") if path.name.startswith(name))
    if len(found) != 1:
        known = ", ".join(path.name for path in sorted(places.snapshots_dir.glob("s-*"))[-5:]) or "none"
        raise NotFound(f"{len(found)} snapshots begin with {name!r}, expected one; the latest are: {known}")
    return load_snapshot(found[0])


def rows_of(snapshot: Snapshot) -> Iterator[tuple[str, Example]]:
    """(part, example) of what training may open. Gate items are not shown: whoever sees them may teach them."""
    for part, file in (("train", snapshot.train), ("validation", snapshot.validation)):
        for line in file.read_text().splitlines():
            if line:
                yield part, Example.model_validate_json(line)


def shown(snapshot: Snapshot, number: int) -> dict[str, Any]:
    """A snapshot's counts and its first rows."""
    return {
        "id": snapshot.id,
        "tenant": snapshot.tenant,
        "digest": snapshot.digest,
        "counts": snapshot.counts,
        "removed": snapshot.removed,
        "forgotten": erased_rows(snapshot.path),
        "rows": [
            {"part": part, **example.model_dump(mode="json", exclude_none=True)}
            for (part, example), _ in zip(rows_of(snapshot), range(number), strict=False)
        ],
    }


def difference(one: Snapshot, other: Snapshot) -> dict[str, Any]:
    """Examples that only one of two snapshots has, by part and shape, and those that changed sides."""
    if one.tenant != other.tenant:
        raise UserError(f"{one.id} is of tenant {one.tenant!r}, {other.id} of {other.tenant!r}; compare one tenant's")
    left, right = ({e.example_id: (part, e) for part, e in rows_of(s)} for s in (one, other))
    added = [right[name] for name in sorted(right.keys() - left.keys())]
    gone = [left[name] for name in sorted(left.keys() - right.keys())]
    moved = sorted(name for name in left.keys() & right.keys() if left[name][0] != right[name][0])
    return {
        "from": one.id,
        "to": other.id,
        "added": _counted(added),
        "gone": _counted(gone),
        "moved": moved,
        "counts": {"from": one.counts, "to": other.counts},
        "added_examples": [e.example_id for _, e in added],
        "gone_examples": [e.example_id for _, e in gone],
    }


def export(snapshot: Snapshot, out: Path) -> dict[str, int]:
    """Write a snapshot's training rows to JSONL, or Parquet by the file's ending. Returns rows by part.

    Raises:
        UserError: another ending, or the file exists.
    """
    if out.exists():
        raise UserError(f"{out} exists already; name another file")
    rows = [(part, example) for part, example in rows_of(snapshot)]
    if out.suffix == ".jsonl":
        lines = (canonical_json({"part": part, **e.model_dump(mode="json")}) for part, e in rows)
        atomic_write(out, "".join(f"{line}\n" for line in lines))
    elif out.suffix == ".parquet":
        import polars as pl

        flat = [
            {
                "part": part,
                **e.model_dump(mode="json"),
                "messages": canonical_json([m.model_dump() for m in e.messages]),
            }
            for part, e in rows
        ]
        out.parent.mkdir(parents=True, exist_ok=True)
        pl.DataFrame(flat, infer_schema_length=None).write_parquet(out)
    else:
        raise UserError(f"cannot tell the format of {out}; expected it to end in .jsonl or .parquet")
    return {part: sum(p == part for p, _ in rows) for part in ("train", "validation")}


def _counted(rows: list[tuple[str, Example]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for part, example in rows:
        counts[f"{part} {example.shape}"] = counts.get(f"{part} {example.shape}", 0) + 1
    return dict(sorted(counts.items()))
