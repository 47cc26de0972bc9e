"""What killed processes left is swept when it is old, and nothing else is."""

from __future__ import annotations

import os
import time
from pathlib import Path

from infra.cleanup import sweep
from infra.settings import Places


def _folder(path: Path, *, age_days: float) -> Path:
    path.mkdir(parents=True)
    file = path / "progress.jsonl"
    file.write_text("{}\n")
    at = time.time() - age_days * 86_400
    for one in (file, path):
        os.utime(one, (at, at))
    return path


def test_old_unfinished_folders_go_and_the_rest_stays(tmp_path: Path) -> None:
    places = Places(home=tmp_path)
    old = [
        _folder(places.stages_dir / ".abc.work", age_days=9),
        _folder(places.snapshots_dir / ".staging-1", age_days=9),
        _folder(places.versions_dir / ".v1.0123", age_days=9),
    ]
    kept = [
        _folder(places.stages_dir / ".def.work", age_days=1),
        _folder(places.stages_dir / "abc", age_days=900),
        _folder(places.versions_dir / "v1", age_days=900),
    ]
    revived = _folder(places.stages_dir / ".ghi.work", age_days=9)
    (revived / "checkpoint").write_text("just now")
    lock = places.stages_dir / ".abc.lock"
    lock.write_text("")
    os.utime(lock, (0, 0))
    assert sweep(places) == old
    assert not any(path.exists() for path in old)
    assert all(path.exists() for path in (*kept, revived, lock))
    assert sweep(places) == []


def test_a_home_that_was_never_used_is_no_error(tmp_path: Path) -> None:
    assert sweep(Places(home=tmp_path / "none")) == []
