"""Signatures and band keys: what near-duplicates are found by."""

from __future__ import annotations

import random
import sqlite3
import zlib
from pathlib import Path

import pytest
from datasketch import MinHash

from feedback.duplicates.dedupe import PERMUTATIONS, shingles, sign, similarity
from feedback.index.delta import Entry, Lesson
from feedback.index.index import BAND_ROWS, Past, band_keys


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
    assert sign(said) == theirs
    assert sign([]) == [] and sign([""]) == theirs[:1]


def test_texts_alike_in_one_band_meet_and_tenants_never_do() -> None:
    long = " ".join(f"word{n}" for n in range(60))
    one, other = sign([long, long + " more"])
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
    import base64

    path = tmp_path / "index.db"
    (signature,) = sign(["a prompt of some length that will be met again another day"])
    past = Past(path)
    past.learn(1, Lesson(sketches=[("acme", "i1", base64.b64encode(signature).decode())]).as_json())
    past.close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE fresh_band SET key = key + 1")
        db.execute("PRAGMA user_version=0")
    past = Past(path)
    (keys,) = band_keys(["acme"], [signature])
    found = past.sketches_by_band(keys)
    assert set(found) == set(keys) and {past.sketch(n) for numbers in found.values() for n in numbers} == {
        ("acme", "i1", signature)
    }
    past.learn(2, Lesson(subjects=[("acme", "i1")]).as_json())
    assert past.sketches_by_band(keys) == {}
    past.close()


@pytest.mark.parametrize("fresh", [1, 3, 1_000])
def test_what_is_kept_apart_and_what_is_put_with_the_rest_are_found_alike(
    fresh: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import base64

    monkeypatch.setattr("feedback.index.index._FRESH", fresh)
    signatures = sign([f"prompt number {n} of some length that will be met again another day {n}" for n in range(8)])
    past = Past(tmp_path / "index.db")
    for n, signature in enumerate(signatures):
        entries = [Entry("acme", f"i{n % 7}", "completion", 40 + n % 2, f"label {n}", n == 3, f"x{n}")._asdict()]
        sketches = [("acme", f"i{n % 7}", base64.b64encode(signature).decode())]
        past.learn(n + 1, Lesson(subjects=[("acme", f"i{n % 7}")], sketches=sketches, entries=entries).as_json())
    bands = dict(enumerate(band_keys(["acme"] * 8, signatures)))
    for n, keys in bands.items():
        met = {past.sketch(s) for numbers in past.sketches_by_band(keys).values() for s in numbers}
        assert (("acme", f"i{n % 7}", signatures[n]) in met) == (n > 0)  # the eighth took the first one's place
    found = past.entries_by_key([40, 41, 99])
    assert {key: {e.example_id for e in of} for key, of in found.items()} == {
        40: {"x2", "x4", "x6"},
        41: {"x1", "x3", "x5", "x7"},
    }
    assert [e.example_id for e in past.entries_of("acme", "i0")] == ["x7"]
    assert past.forget("acme", ["i0", "i3"], "nobody", []) == 4  # a sketch and an entry each
    assert past.entries_of("acme", "i3") == [] and past.sketches_by_band(bands[3]) == {}
    past.close()
