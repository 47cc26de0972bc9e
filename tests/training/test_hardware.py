"""The machine is measured once, and the measurement decides the dtype."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from training import hardware


def test_the_measurement_is_kept_and_decides(tmp_path: Path) -> None:
    first = hardware.best_dtype(tmp_path)
    file = tmp_path / "hardware.json"
    if not file.exists():
        pytest.skip("this processor has no bfloat16 instructions, so nothing is measured")
    kept = json.loads(file.read_text())
    (name,) = kept
    ratio = kept[name]["float32"] / kept[name]["bfloat16"]
    assert first == ("bfloat16" if ratio >= hardware.WORTH else "float32")
    # What is kept is believed, whatever a new measurement would say.
    for seconds, expected in ((1.0, "bfloat16"), (0.001, "float32")):
        file.write_text(json.dumps({name: {"float32": seconds, "bfloat16": 0.01}}))
        assert hardware.best_dtype(tmp_path) == expected
