"""The machine is measured once, and the measurement decides the dtype."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from evaluation.run.noise_floors import hardware_name
from training import hardware


def test_the_measurement_is_kept_and_decides(tmp_path: Path) -> None:
    first = hardware.best_dtype(tmp_path)
    file = tmp_path / "hardware.json"
    if not file.exists():
        pytest.skip("this processor has no bfloat16 instructions, so nothing is measured")
    kept = json.loads(file.read_text())
    (name,) = kept
    ratio = kept[name]["float32"] / kept[name]["bfloat16"]
    assert first == ("bfloat16" if ratio >= hardware.MINIMUM_SPEEDUP else "float32")
    # What is kept is believed, whatever a new measurement would say.
    for seconds, expected in ((1.0, "bfloat16"), (0.001, "float32")):
        file.write_text(json.dumps({name: {"float32": seconds, "bfloat16": 0.01}}))
        assert hardware.best_dtype(tmp_path) == expected


def seen(monkeypatch: pytest.MonkeyPatch, *gpus: hardware.Gpu) -> None:
    found = hardware.Accelerators(gpus=gpus, build="CUDA 13.0")
    monkeypatch.setattr(hardware, "accelerators", lambda: found)


def test_a_gpu_that_only_imitates_bfloat16_computes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    new = hardware.Gpu(name="new", memory=80, bfloat16=True)
    old = hardware.Gpu(name="old", memory=16, bfloat16=False)
    seen(monkeypatch, new, old)
    assert (hardware.best_dtype(), hardware.device_name()) == ("bfloat16", "cuda")
    assert (hardware.memory_bytes(), hardware.memory_each(2)) == (80, 16)
    assert hardware.memory_each(2, given_gb=1) == 10**9  # each has a GPU of its own
    assert hardware_name(2, "auto").startswith("new, ")  # noise of another device is another's
    seen(monkeypatch, old)
    assert hardware.best_dtype() == "float32"
    seen(monkeypatch)
    assert hardware.device_name() == "cpu" and hardware.memory_each(2) == hardware.main_memory() // 2


def test_who_plans_asks_torch_without_importing_it() -> None:
    code = (
        "import sys; from training import hardware; found = hardware.accelerators()\n"
        "assert 'torch' not in sys.modules; print(found.model_dump_json())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert hardware.Accelerators.model_validate_json(done.stdout) == hardware.detect()
