"""Signatures and band keys: what near-duplicates are found by."""

from __future__ import annotations

import random
import sqlite3
import zlib
from pathlib import Path

import pytest
from datasketch import MinHash

from feedback.duplicates.minhash import PERMUTATIONS, minhash_signatures, similarity
from feedback.index.example_index import BAND_ROWS, band_keys
from feedback.index.ingest_index import IngestIndex
from feedback.index.update import IndexEntry, IndexUpdate, Sketch
from feedback.text.vocabulary import shingles


def texts(count: int, *, seed: int = 0) -> list[str]:
    chance = random.Random(seed)
    words = ["".join(chance.choices("abcdefgh", k=chance.randint(2, 8))) for _ in range(300)]
    return [" ".join(chance.choices(words, k=chance.choice((0, 1, 2, 3, 40)))) for _ in range(count)]


def test_many_at_a_time_are_signed_as_datasketch_signs_one() -> None:
    said = ["", *texts(200), "Über großen Höhen", "Über großen Höhen weht größerer Wind über Höhen", ""]
    theirs = []
    for text in said:
        sketch = MinHash(num_perm=PERMUTATIONS, hashfunc=zlib.crc32, scheme="affine32")
        sketch.update_batch([shingle.encode() for shingle in shingles(text)])
        theirs.append(sketch.hashvalues.astype("<u4").tobytes())
    assert minhash_signatures(said) == theirs
    assert minhash_signatures([]) == [] and minhash_signatures([""]) == theirs[:1]


def test_texts_alike_in_one_band_meet_and_tenants_never_do() -> None:
    long = " ".join(f"word{n}" for n in range(60))
    one, other = minhash_signatures([long, long + " more"])
    bands = PERMUTATIONS // BAND_ROWS
    alike = [
        one[4 * BAND_ROWS * b :][: 4 * BAND_ROWS] == other[4 * BAND_ROWS * b :][: 4 * BAND_ROWS] for b in range(bands)
    ]
    (mine, yours, stranger) = band_keys(["a", "a", "b"], [one, other, one])
    assert [a == b for a, b in zip(mine, yours, strict=True)] == alike and any(alike)
    assert len(mine) == bands and not set(mine) & set(stranger)
    assert similarity(one, other) > 0.9
    assert band_keys([], []) == []


def test_an_index_whose_band_keys_were_made_otherwise_finds_its_sketches_still(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    (signature,) = minhash_signatures(["a prompt of some length that will be met again another day"])
    index = IngestIndex(path)
    index.learn(1, IndexUpdate(sketches=[Sketch("acme", "i1", signature)]))
    index.close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE fresh_band SET key = key + 1")
        db.execute("PRAGMA user_version=0")
    index = IngestIndex(path)
    (keys,) = band_keys(["acme"], [signature])
    found = index.examples.sketches_by_band(keys)
    assert set(found) == set(keys) and {index.examples.sketch(n) for numbers in found.values() for n in numbers} == {
        ("acme", "i1", signature)
    }
    index.learn(2, IndexUpdate(subjects=[("acme", "i1")]))
    assert index.examples.sketches_by_band(keys) == {}
    index.close()


@pytest.mark.parametrize("fresh", [1, 3, 1_000])
def test_what_is_kept_apart_and_what_is_put_with_the_rest_are_found_alike(
    fresh: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feedback.index.example_index._FRESH", fresh)
    signatures = minhash_signatures(
        [f"prompt number {n} of some length that will be met again another day {n}" for n in range(8)]
    )
    index = IngestIndex(tmp_path / "index.db")
    for n, signature in enumerate(signatures):
        entries = [IndexEntry("acme", f"i{n % 7}", "completion", 40 + n % 2, f"label {n}", n == 3, f"x{n}")]
        sketches = [Sketch("acme", f"i{n % 7}", signature)]
        index.learn(n + 1, IndexUpdate(subjects=[("acme", f"i{n % 7}")], sketches=sketches, entries=entries))
    bands = dict(enumerate(band_keys(["acme"] * 8, signatures)))
    for n, keys in bands.items():
        met = {index.examples.sketch(s) for numbers in index.examples.sketches_by_band(keys).values() for s in numbers}
        assert (("acme", f"i{n % 7}", signatures[n]) in met) == (n > 0)  # the eighth took the first one's place
    found = index.examples.entries_by_key([40, 41, 99])
    assert {key: {e.example_id for e in of} for key, of in found.items()} == {
        40: {"x2", "x4", "x6"},
        41: {"x1", "x3", "x5", "x7"},
    }
    assert [e.example_id for e in index.examples.entries_of("acme", "i0")] == ["x7"]
    assert index.forget("acme", ["i0", "i3"], "nobody", []) == 4  # a sketch and an entry each
    assert index.examples.entries_of("acme", "i3") == [] and index.examples.sketches_by_band(bands[3]) == {}
    index.close()
