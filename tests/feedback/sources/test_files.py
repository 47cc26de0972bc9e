from __future__ import annotations

import csv
import json
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from feedback.events import Edit, Preference, Reference, Thumb
from feedback.ingest.run import run_ingest
from feedback.lake.quarantine import held_rows
from feedback.sources import SOURCES
from feedback.sources.files import Options, add_row
from feedback.sources.landing import Lot, SourceSpec, land, rejects_after
from feedback.store.store import Store
from infra.errors import UserError
from tests.feedback.world import FAST, START, feedback_on, interaction, make_lake, make_store

COLUMNS = {"prompt": "q", "answer": "a", "edit": "fix", "thumb": "ok", "chosen": "best", "rejected": "worst"}


def spec(folder: Path, pattern: str = "*.jsonl", **options: Any) -> SourceSpec:
    base = {"paths": [str(folder / pattern)], "tenant": "acme", "hashed_users": True, "settle_seconds": 0.0}
    return SourceSpec(name="mine", kind="files", options=base | options)


def row(**cells: object) -> dict[str, object]:
    return dict.fromkeys(COLUMNS.values()) | {"q": "How are you?", "a": "Bad"} | cells


def test_every_registered_source_offers_what_landing_needs() -> None:
    for kind in SOURCES:
        module = SOURCES[kind]
        assert callable(module.read) and module.Options.model_json_schema()["properties"]
    here = {path.stem for path in Path(SOURCES["files"].__file__).parent.glob("*.py")}  # type: ignore[attr-defined]
    assert here - {"__init__", "landing", "mapping", "storage", "watermark", "erasure", "file_rows"} == SOURCES.keys()


def test_rows_become_events_by_the_declared_columns(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    rows = [row(fix="Good"), row(ok="down"), row(best="A", worst="B", ok=True)]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert land(store, spec(tmp_path, mapping=COLUMNS)) == {
        "interactions": 1, "feedback": 4, "duplicates": 2, "rejects": 0,
    }  # fmt: skip
    values = [ready.feedback.value for ready in store.feedback_after(0, 10)]
    assert values == [Edit(text="Good"), Thumb(up=False), Thumb(up=True), Preference(chosen="A", rejected="B")]


def test_only_what_was_added_is_read(tmp_path: Path) -> None:
    store, file = make_store(tmp_path), tmp_path / "x.jsonl"
    file.write_text(json.dumps(row(fix="one")) + "\n")
    assert land(store, spec(tmp_path, mapping=COLUMNS))["feedback"] == 1
    assert land(store, spec(tmp_path, mapping=COLUMNS)) == dict.fromkeys(
        ("interactions", "feedback", "duplicates", "rejects"), 0
    )
    with file.open("a") as more:
        more.write(json.dumps(row(fix="two")) + "\n" + '{"q": "half a li')
    assert land(store, spec(tmp_path, mapping=COLUMNS, settle_seconds=9e9))["feedback"] == 1
    with file.open("a") as more:
        more.write('ne", "a": "x", "fix": "three", "ok": null, "best": null, "worst": null}\n')
    done = land(store, spec(tmp_path, mapping=COLUMNS))
    assert (done["feedback"], done["rejects"]) == (1, 0)
    file.write_text(json.dumps(row(fix="another file altogether")) + "\n")
    assert land(store, spec(tmp_path, mapping=COLUMNS))["feedback"] == 1


def test_own_events_round_trip(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    event, feedback = interaction(1, "hello"), feedback_on(1, Reference(text="x"))
    line = {"interaction": event.model_dump(mode="json"), "feedback": feedback.model_dump(mode="json")}
    (tmp_path / "x.jsonl").write_text(json.dumps(line))
    land(store, spec(tmp_path))
    assert store.interaction("acme", "i1") == event
    assert store.feedback_for("acme", "i1") == [feedback.model_copy(update={"source": "files:x.jsonl"})]


@pytest.mark.parametrize(
    ("changed", "trusted", "why"),
    [
        ({"tenant": "globex"}, True, "of tenant 'globex', expected the source's, 'acme'"),
        ({"trusted": True}, False, "calls itself trusted"),
        ({"actor": "files:x.jsonl"}, False, "calls a person 'files:x.jsonl'"),
    ],
)
def test_a_row_of_own_events_says_neither_whose_it_is_nor_that_it_is_trusted(
    tmp_path: Path, changed: dict[str, object], trusted: bool, why: str
) -> None:
    store = make_store(tmp_path)
    line = {"feedback": feedback_on(1, Reference(text="x")).model_dump(mode="json") | changed}
    (tmp_path / "x.jsonl").write_text(json.dumps(line))
    assert land(store, spec(tmp_path, trusted=trusted))["rejects"] == 1
    (reject,) = rejects_after(store.database, 0, 10)
    assert why in reject.detail


def test_csv_and_parquet(tmp_path: Path) -> None:
    import polars as pl

    store = make_store(tmp_path)
    with (tmp_path / "x.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(row()))
        writer.writeheader()
        writer.writerow(row(fix="=HYPERLINK(1)\nsecond line"))
        file.write("too,few\r\n")
    with (tmp_path / "x.csv").open("ab") as file:
        file.write(b"q,a,\xff\xfe,up,,\r\n")
    pl.DataFrame([row(fix="from parquet")]).write_parquet(tmp_path / "x.parquet")
    (tmp_path / "y.parquet").write_bytes(b"PAR1 not really PAR1")
    done = land(store, spec(tmp_path, "*.[cp]*", mapping=COLUMNS))
    assert (done["feedback"], done["rejects"]) == (2, 3)
    assert sorted(r.code for r in rejects_after(store.database, 0, 10)) == ["bad-csv", "bad-encoding", "bad-parquet"]
    assert land(store, spec(tmp_path, "*.[cp]*", mapping=COLUMNS))["feedback"] == 0


BAD = {
    "bad-json": [b"{", b"nonsense", b'{"q": NaN}', b'{"q": 1, "q": 2}', b'{"q": "\\ud800', b"[" * 100_000],
    "bad-encoding": [b'{"q": "\xff\xfe"}', "{}".encode("utf-16")],
    "bad-row": [b"[]", b"3", b"null", b'"text"'],
    "too-large": [b'{"q": "' + b"x" * 20_000 + b'"}'],
    "bad-event": [
        json.dumps(value).encode()
        for value in (
            {},
            {"q": "hi"},
            row(ok="maybe"),
            row(q={"nested": ["surprise"]}),
            row(best="only one"),
            row(q=None, a=None),
            row(q=None, fix="edit of nothing"),
        )
    ],
}


def test_each_bad_row_is_quarantined_with_its_reason_and_its_neighbours_are_taken(tmp_path: Path) -> None:
    store, lake = make_store(tmp_path), make_lake(tmp_path)
    lines = [line for bad in BAD.values() for line in bad]
    good = [json.dumps(row(q=f"good question {n}", fix=f"good {n}")).encode() for n in range(len(lines))]
    mixed = [line for pair in zip(good, lines, strict=True) for line in pair]
    (tmp_path / "x.jsonl").write_bytes(b"\n".join(mixed))
    report = run_ingest(store, lake, (spec(tmp_path, mapping=COLUMNS, max_row_bytes=10_000),), FAST)
    rows = held_rows(store, lake)
    deep = 1  # longer than a row may be, before anybody looks how deep it goes
    counts = {code: len(bad) for code, bad in BAD.items()} | {
        "bad-json": len(BAD["bad-json"]) - deep,
        "too-large": 1 + deep,
    }
    assert {code: sum(r.code == code for r in rows) for code in BAD} == counts
    assert all(r.detail and r.step == "source" for r in rows)
    assert report.counts["fates"] == {"accepted": len(good)}
    assert run_ingest(store, lake, (spec(tmp_path, mapping=COLUMNS, max_row_bytes=10_000),), FAST).batches == ()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=60) | st.dictionaries(st.sampled_from("qaok"), st.text(max_size=9)).map(
    lambda d: json.dumps(d).encode()), max_size=8))  # fmt: skip
def test_no_bytes_crash_a_source(tmp_path: Path, lines: list[bytes]) -> None:
    from feedback.sources.files import read

    file = tmp_path / "fuzz.jsonl"
    file.write_bytes(b"\n".join(lines))
    options = Options.model_validate(spec(tmp_path, "fuzz.jsonl", mapping={"prompt": "q", "edit": "a"}).options)
    first, again = list(read(options, None)), list(read(options, None))
    assert first == again
    filled = sum(1 for line in file.read_bytes().split(b"\n") if line.strip())
    assert sum(len(lot.rejects) + max(len(lot.interactions), len(lot.feedback)) for lot in first) <= max(filled, 0) * 2
    if first:
        assert list(read(options, first[-1].watermark)) == []


def test_times_are_seconds_or_smaller_by_their_size_and_impossible_ones_are_rejects(tmp_path: Path) -> None:
    store, at = make_store(tmp_path), 1_767_225_600
    mapping = {"prompt": "q", "edit": "a", "created_at": "t", "event_id": "n"}
    times: list[object] = [
        at,
        f"{at}",
        at * 1_000,
        f"{at}000",
        at * 10**6,
        at * 10**9,
        f"{at}000000000",
        float(at),
        START,
    ]
    times = [str(time) if time is START else time for time in times]
    bad = [10**22, "9" * 30, "9" * 400, 10**400, -(10**22), "inf", "nan", 1e300, "soon", [1], "²"]
    rows = [{"q": "hi", "a": "x", "t": time, "n": str(n)} for n, time in enumerate([*times, *bad, -at])]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    done = land(store, spec(tmp_path, mapping=mapping))
    assert {r.feedback.event_id: r.feedback.created_at for r in store.feedback_after(0, 99)} == {
        **{str(n): START for n in range(len(times))},
        str(len(rows) - 1): START - timedelta(seconds=2 * at),
    }
    assert done["rejects"] == len(bad)


@settings(max_examples=60, deadline=None)
@given(st.integers() | st.floats() | st.text(max_size=9) | st.integers().map(str) | st.datetimes().map(str))
def test_no_time_crashes_a_source(time: object) -> None:
    lot = Lot(watermark=None, tenant="acme")
    options = Options.model_validate({"paths": ["x"], "mapping": {"prompt": "q", "edit": "a", "created_at": "t"}})
    add_row(lot, "1", {"q": "hi", "a": "x", "t": time}, options, source="files:x", at=START)
    assert len(lot.rejects) + len(lot.feedback) == 1


def test_of_a_parquet_file_only_rows_that_python_has_no_values_for_are_rejects(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    store = make_store(tmp_path)
    times = pa.array([0, 2**62, None, -(2**62)], pa.int64()).cast(pa.timestamp("us"))
    days = pa.array([0, 0, 0, 2**31 - 1], pa.int32()).cast(pa.date32())
    table = pa.table({"q": ["a", "b", "c", "d"], "fix": ["w", "x", "y", "z"], "t": times, "day": days})
    pq.write_table(table, tmp_path / "x.parquet")
    mapping = {"prompt": "q", "edit": "fix", "created_at": "t"}
    done = land(store, spec(tmp_path, "x.parquet", mapping=mapping))
    assert (done["feedback"], done["rejects"]) == (2, 2)
    first, second = rejects_after(store.database, 0, 9)
    assert (first.code, first.place.split(":")[1], second.place.split(":")[1]) == ("bad-parquet", "2", "4")
    assert first.detail.startswith("t: ") and "day: " in second.detail and '"q": "b"' in first.raw
    assert land(store, spec(tmp_path, "x.parquet", mapping=mapping))["feedback"] == 0


def test_a_csv_file_with_a_column_twice_keeps_no_other_source_from_being_read(tmp_path: Path) -> None:
    store, lake = make_store(tmp_path), make_lake(tmp_path)
    (tmp_path / "a.csv").write_text("q,fix,q\none,two,three\n")
    (tmp_path / "b.csv").write_text("q,fix\nfour,five\n")
    sources = [
        spec(tmp_path, name, mapping={"prompt": "q", "edit": "fix"}).model_copy(update={"name": name})
        for name in ("a.csv", "b.csv")
    ]
    assert run_ingest(store, lake, sources, FAST).counts["fates"] == {"accepted": 1}
    (held,) = held_rows(store, lake)
    assert (held.code, held.detail) == ("bad-csv", "the column name 'q' stands twice in the header; rename one")
    (tmp_path / "a.csv").write_text("q,fix,r\none,two,three\n")  # mended, and so read again
    assert run_ingest(store, lake, sources, FAST).counts["fates"] == {"accepted": 1}


def test_mistakes_of_the_config_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="unknown kind of source 'carrier-pigeon'"):
        SourceSpec(name="x", kind="carrier-pigeon")
    with pytest.raises(ValidationError, match="paths"):
        SourceSpec(name="x", kind="files", options={})
    with pytest.raises(UserError, match="does not exist"):
        land(make_store(tmp_path), spec(tmp_path, "missing.jsonl"))
    (tmp_path / "x.tsv").write_text("")
    with pytest.raises(UserError, match="format"):
        land(make_store(tmp_path), spec(tmp_path, "x.tsv"))


def test_a_gateway_with_a_database_of_its_own_is_followed(tmp_path: Path) -> None:
    theirs, ours = make_store(tmp_path / "g"), make_store(tmp_path)
    url = f"sqlite:///{tmp_path / 'g' / 'store.db'}"
    follow = SourceSpec(name="g", kind="gateway", options={"database_url": url, "lot": 2})
    for number in range(5):
        theirs.record_interaction(interaction(number, "hello"))
        theirs.record_feedback(feedback_on(number, Thumb(up=True)))
    assert land(ours, follow) == {"interactions": 5, "feedback": 5, "duplicates": 0, "rejects": 0}
    assert land(ours, follow)["duplicates"] == 0 and ours.parked() == 0
    theirs.record_feedback(feedback_on(3, Edit(text="x")))
    assert land(ours, follow)["feedback"] == 1


@pytest.mark.parametrize("new", [1, 9], ids=["behind the cursor", "grown past the cursor"])
def test_a_gateways_database_that_was_restored_is_read_from_its_beginning(tmp_path: Path, new: int) -> None:
    theirs, ours = make_store(tmp_path / "g"), make_store(tmp_path)
    file = tmp_path / "g" / "store.db"
    follow = SourceSpec(name="g", kind="gateway", options={"database_url": f"sqlite:///{file}", "lot": 2})

    def tell(store: Store, first: int, last: int) -> None:
        for number in range(first, last):
            store.record_interaction(interaction(number, "hello"))
            store.record_feedback(feedback_on(number, Thumb(up=True)))
        store.record_feedback(feedback_on(f"{last}-lost", Thumb(up=True)))  # of an interaction that was never captured

    tell(theirs, 0, 2)
    theirs.database.dispose()
    shutil.copy(file, tmp_path / "backup.db")
    tell(theirs, 2, 6)
    assert land(ours, follow)["feedback"] == 8
    theirs.database.dispose()
    shutil.copy(tmp_path / "backup.db", file)
    tell(make_store(tmp_path / "g"), 50, 50 + new)
    done = land(ours, follow)
    assert (done["interactions"], done["feedback"]) == (new, new + 1)
    assert land(ours, follow) == {"interactions": 0, "feedback": 0, "duplicates": 0, "rejects": 0}


def test_plain_text_is_documents(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    (tmp_path / "a.txt").write_bytes(b"One.\nStill one.\r\n\r\nTwo.")
    (tmp_path / "b.txt").write_bytes(b"Three.\n" + b"A sentence. " * 3_000 + b"\n\xff\xfe\n")
    done = land(store, spec(tmp_path, "*.txt"))
    assert (done["feedback"], done["rejects"]) == (2 + 1 + 2, 1)
    texts = [r.feedback.value.text for r in store.feedback_after(0, 99)]  # type: ignore[union-attr]
    assert texts[:3] == ["One.\nStill one.", "Two.", "Three."] and all(len(t) <= 20_000 for t in texts)
    assert texts[3].endswith("A sentence.") and "".join(texts[3:]).count("A sentence.") == 3_000


def test_of_a_broken_json_array_the_rows_before_the_break_are_taken(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    good = [{"instruction": f"Say {n}", "output": str(n)} for n in range(3)]
    (tmp_path / "a.json").write_text(json.dumps(good)[:-1] + ', 7, {"instruction": "cut off')
    done = land(store, spec(tmp_path, "*.json"))
    assert (done["feedback"], done["rejects"]) == (3, 2)
    assert [r.code for r in rejects_after(store.database, 0, 9)] == ["bad-row", "bad-json"]
