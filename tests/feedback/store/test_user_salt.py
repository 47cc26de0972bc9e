"""A store keeps to the salt that its users were hashed with."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from feedback.ingest.run import run_ingest
from feedback.sources.landing import SourceSpec
from feedback.store.user_salt import SALT, verify_salt
from infra.errors import UserError
from tests.feedback.world import FAST, make_lake, make_store


def test_another_salt_is_refused_before_anything_is_taken_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, lake = make_store(tmp_path), make_lake(tmp_path)
    file = tmp_path / "said.jsonl"
    file.write_text('{"prompt": "What is it?", "edit": "This.", "who": "zoe"}\n')
    options = {"paths": [str(file)], "tenant": "acme", "mapping": {"prompt": "prompt", "edit": "edit", "user": "who"}}
    spec = SourceSpec.model_validate({"name": "said", "kind": "files", "options": options})
    monkeypatch.setenv(SALT, "one")
    assert run_ingest(store, lake, (spec,), FAST).landed["said"]["feedback"] == 1
    file.write_text(file.read_text() * 2)
    monkeypatch.setenv(SALT, "another")
    with pytest.raises(UserError, match="not the one that this store's users were hashed with"):
        run_ingest(store, lake, (spec,), FAST)
    monkeypatch.setenv(SALT, "one")
    run_ingest(store, lake, (spec,), FAST)
    verify_salt(store.database, "one")
    assert stat.S_IMODE((tmp_path / "store.db").stat().st_mode) == 0o600
