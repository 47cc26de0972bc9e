"""Show the lake for `ratchet data`: its batches, a snapshot's rows, what two snapshots differ in, an export."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

from pydantic import ConfigDict, Field, JsonValue

from feedback.erasure.snapshots import erased_rows
from feedback.examples import Example
from feedback.lake.lake import Lake
from feedback.snapshots.snapshot import Snapshot, load_snapshot
from infra.artifact import atomic_write, canonical_json
from infra.errors import NotFound, UserError
from infra.settings import Config, Places


class BatchRow(Config):
    """One batch of the lake."""

    batch: int
    rows: Mapping[str, int]
    """Rows by table."""
    counts: Mapping[str, Mapping[str, int]]
    """What became of its rows, by step and reason."""


class SnapshotPage(Config):
    """A snapshot's counts and its first rows."""

    id: str
    tenant: str
    digest: str
    counts: Mapping[str, Mapping[str, int]]
    removed: Mapping[str, int]
    forgotten: Mapping[str, int]
    """Rows that erasures took away, by part."""
    rows: tuple[Mapping[str, JsonValue], ...]
    """Part and example."""


class SnapshotDiff(Config):
    """What two snapshots differ in."""

    model_config = ConfigDict(serialize_by_alias=True)

    first: str = Field(serialization_alias="from")
    second: str = Field(serialization_alias="to")
    added: Mapping[str, int]
    """Examples that only the second has, by part and shape."""
    gone: Mapping[str, int]
    """Those that only the first has."""
    moved: tuple[str, ...]
    """Examples that are in the other part."""
    counts: Mapping[str, Mapping[str, Mapping[str, int]]]
    added_examples: tuple[str, ...]
    gone_examples: tuple[str, ...]


def latest_batches(lake: Lake, last: int) -> list[BatchRow]:
    """List the latest batches, newest first: what each took in and put where."""
    newest = lake.last()
    if newest is None:
        return []
    numbers = range(newest.batch, max(0, newest.batch - last), -1)
    batches = [lake.manifest(number) for number in numbers]
    return [BatchRow(batch=b.batch, rows=b.rows, counts=b.counts) for b in batches]


def snapshot_named(places: Places, name: str) -> Snapshot:
    """Load the snapshot of that name, or of the only one that begins so.

    Raises:
        NotFound: none, or several, are called so.
    """
    matching = sorted(path for path in places.snapshots_dir.glob("s-*") if path.name.startswith(name))
    if len(matching) != 1:
        known = ", ".join(path.name for path in sorted(places.snapshots_dir.glob("s-*"))[-5:]) or "none"
        raise NotFound(f"{len(matching)} snapshots begin with {name!r}, expected one; the latest are: {known}")
    return load_snapshot(matching[0])


def rows_of(snapshot: Snapshot) -> Iterator[tuple[str, Example]]:
    """Read (part, example) of what training may open. Gate items are not shown: whoever sees them may teach them."""
    for part, file in (("train", snapshot.train), ("validation", snapshot.validation)):
        for line in file.read_text().splitlines():
            if line:
                yield part, Example.model_validate_json(line)


def show_snapshot(snapshot: Snapshot, number: int) -> SnapshotPage:
    """Show a snapshot's counts and its first rows."""
    return SnapshotPage(
        id=snapshot.id,
        tenant=snapshot.tenant,
        digest=snapshot.digest,
        counts=snapshot.counts,
        removed=snapshot.removed,
        forgotten=erased_rows(snapshot.path),
        rows=tuple(
            {"part": part, **example.model_dump(mode="json", exclude_none=True)}
            for part, example in islice(rows_of(snapshot), number)
        ),
    )


def compare_snapshots(first: Snapshot, second: Snapshot) -> SnapshotDiff:
    """Compare two snapshots: examples that only one has, by part and shape, and those that changed sides."""
    if first.tenant != second.tenant:
        raise UserError(
            f"{first.id} is of tenant {first.tenant!r}, {second.id} of {second.tenant!r}; compare one tenant's"
        )
    left, right = ({e.example_id: (part, e) for part, e in rows_of(s)} for s in (first, second))
    added = [right[name] for name in sorted(right.keys() - left.keys())]
    gone = [left[name] for name in sorted(left.keys() - right.keys())]
    moved = sorted(name for name in left.keys() & right.keys() if left[name][0] != right[name][0])
    return SnapshotDiff(
        first=first.id,
        second=second.id,
        added=_counted(added),
        gone=_counted(gone),
        moved=tuple(moved),
        counts={"from": first.counts, "to": second.counts},
        added_examples=tuple(example.example_id for _, example in added),
        gone_examples=tuple(example.example_id for _, example in gone),
    )


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
