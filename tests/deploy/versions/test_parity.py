"""Parity against a real engine that is fed wrong things."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from deploy.ledger.evidence import Proof
from deploy.versions.parity import ParityError, check_parity, prover
from deploy.versions.versions import load_version
from infra.artifact import read_record, write_record
from infra.errors import CorruptArtifact, NotFound
from tests.deploy.serving_stack import BASE, Stack
from tests.tiny_model import build_tiny_base
from training.stages.probe import Probe, read_probe, take_probe


def test_right_version_is_proved(serving: Stack) -> None:
    with serving.engine() as engine:
        facts = prover(engine, serving.versions_dir, base_version=BASE)(serving.versions[0])
    assert facts.relative_error is not None and facts.relative_error < 1e-3
    assert facts.effect is not None and facts.effect > 0.01
    assert facts.cosine == pytest.approx(1.0, abs=1e-3)


def test_another_adapter_under_the_name_is_refused(serving: Stack) -> None:
    right, wrong = serving.versions[:2]
    with serving.engine() as engine:
        engine.load(wrong, serving.versions_dir / wrong / "adapter")
        with pytest.raises(ParityError, match="is not that version"):
            check_parity(engine, wrong, read_probe(serving.versions_dir / right), base_name=BASE)
        with pytest.raises(ParityError, match="is not that version"):
            check_parity(engine, BASE, read_probe(serving.versions_dir / right), base_name=BASE)


def test_adapter_without_effect_is_refused(serving: Stack) -> None:
    probe = read_probe(serving.versions_dir / serving.versions[0])
    idle = Probe.model_validate(
        probe.model_dump() | {"prompts": [{**p.model_dump(), "version": p.base} for p in probe.prompts]}
    )
    with serving.engine() as engine, pytest.raises(ParityError, match="does not differ from the base at all"):
        check_parity(engine, BASE, idle, base_name=BASE)


def test_base_of_another_revision_is_refused(serving: Stack, tmp_path: Path) -> None:
    version = serving.versions[0]
    other = build_tiny_base(tmp_path / "other", seed=5)
    probe = take_probe(other, serving.versions_dir / version / "adapter", "adapter", "float32", tmp_path)
    with serving.engine() as engine:
        engine.load(version, serving.versions_dir / version / "adapter")
        with pytest.raises(ParityError, match="base is not the one"):
            check_parity(engine, version, probe, base_name=BASE)


def published_on(serving: Stack, tmp_path: Path, base_digest: str, probe: Probe | None = None) -> Path:
    """A folder of versions with one that says which base it was trained on."""
    version = serving.versions[0]
    shutil.copytree(serving.versions_dir / version, tmp_path / version)
    record = read_record(tmp_path / version)
    assert record is not None
    write_record(tmp_path / version, record.model_copy(update={"parents": {"base": base_digest}}))
    if probe is not None:
        (tmp_path / version / "probe.json").write_text(probe.model_dump_json())
    return tmp_path


def test_the_base_itself_is_proved_by_what_versions_recorded_of_it(serving: Stack, tmp_path: Path) -> None:
    digest = BASE.removeprefix("base-") + "0" * 52
    version = serving.versions[0]
    other = build_tiny_base(tmp_path / "other", seed=5)
    theirs = take_probe(other, serving.versions_dir / version / "adapter", "adapter", "float32", tmp_path)
    right = published_on(serving, tmp_path / "right", digest)
    wrong = published_on(serving, tmp_path / "wrong", digest, theirs)
    unrelated = published_on(serving, tmp_path / "unrelated", "f" * 64)
    with serving.engine() as engine:
        facts = prover(engine, right, base_version=BASE)(BASE)
        assert facts.proved and facts.base_error is not None and facts.base_error < 1e-3
        with pytest.raises(ParityError, match=f"the engine's base is not {BASE}"):
            prover(engine, wrong, base_version=BASE)(BASE)
        assert prover(engine, unrelated, base_version=BASE)(BASE) == Proof(version=BASE, base=True, proved=False)


def test_damaged_version_never_reaches_traffic(serving: Stack, tmp_path: Path) -> None:
    version = serving.versions[2]
    shutil.copytree(serving.versions_dir / version, tmp_path / version)
    file = tmp_path / version / "adapter" / "adapter_model.safetensors"
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[:-100])
    with serving.engine() as engine:
        with pytest.raises(CorruptArtifact, match="bytes were changed or cut"):
            prover(engine, tmp_path, base_version=BASE)(version)
        with pytest.raises(NotFound):
            prover(engine, tmp_path, base_version=BASE)("v0123456789abcdef")
        assert load_version(serving.versions_dir, version).name == version
