"""Training is handed what examines it, by mistake or to cheat: it reads none of it (guarantee 1)."""

from __future__ import annotations

from pathlib import Path

import pytest

from feedback.ingest.run import run_ingest
from feedback.snapshots.gate_items import gate_items
from feedback.snapshots.layout import GATE_FILES
from feedback.snapshots.snapshot import SnapshotConfig, cut_snapshot
from infra.errors import UserError
from tests.feedback.world import FAST, fill, make_lake, make_store
from training.stages.tokenization import read_examples


def test_training_cannot_read_gate_parts(tmp_path: Path) -> None:
    store, lake = make_store(tmp_path), make_lake(tmp_path)
    fill(store, tickets=80)
    run_ingest(store, lake, (), FAST)
    cut = cut_snapshot(lake, tmp_path / "snapshots", SnapshotConfig(frozen_share=0.2), tenant="acme")
    assert list(read_examples(cut.train)) and gate_items(cut)
    for name in GATE_FILES.values():
        file = cut.path / name
        assert file.read_text().strip()
        with pytest.raises(UserError, match="is not an example"):
            list(read_examples(file))
