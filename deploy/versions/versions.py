"""Publish and load versions: finished weights under the name of their own bytes, where engines and gateways read them.

`versions/<name>/` holds `adapter/` or `model/`, `probe.json` and, written last, `record.json`; it never changes. An
adapter that equals a LoRA in other words has that beside it in `lora/`, for engines that know nothing else. The
name is "v" and the first 16 digits of the weights' digest, so the same weights have the same name on every machine,
and a name is never reused for other weights.
"""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path
from typing import Literal

from infra.artifact import RECORD, Record, digest_dir, publish, read_record, version_name
from infra.errors import CorruptArtifact, NotFound
from infra.settings import Config
from training.stages.result import WeightsOrigin

Kind = Literal["adapter", "model"]
PROBE = "probe.json"


class VersionFile(Config):
    """A version on disk."""

    name: str
    """The version's name: "v" and the beginning of its digest."""
    kind: Kind
    """Whether the weights are an adapter on the base model, or a whole model."""
    path: Path
    """Folder of the weights, what an engine loads."""
    probe: Path | None
    """Prompts with the log-probabilities recorded for these weights, to prove what an engine serves."""
    record: Record
    """What made it, of what."""
    plain: Path | None = None
    """Folder of the plain LoRA that equals the adapter; None where there is none, or it is one itself."""

    @property
    def folder(self) -> Path:
        """The version's folder."""
        return self.path.parent

    @property
    def digest(self) -> str:
        """SHA-256 of the weights folder."""
        return self.record.digest


def publish_version(stage_dir: Path, versions_dir: Path, *, base: Path | None = None) -> VersionFile:
    """Copy a finished stage's weights, record and probe to their place, and check them there.

    Publishing the same weights again, at once or after a crash, changes nothing.

    Args:
        base: folder of the base model; with it, an adapter that equals a LoRA is written as one too.

    Raises:
        CorruptArtifact: the stage is not finished, or its bytes are not those its record promises.
    """
    record = read_record(stage_dir)
    if record is None:
        raise CorruptArtifact(f"{stage_dir} has no {RECORD}: the stage was not finished; run it again")
    kind = _kind(stage_dir)
    _check(stage_dir / kind, record)
    final = versions_dir / version_name(record.digest)
    if read_record(final) is None:
        staging = versions_dir / f".{final.name}.{uuid.uuid4().hex}"
        try:
            # A copy, not a link: a later write into the stage's folder must not reach what is served.
            shutil.copytree(stage_dir / kind, staging / kind)
            if (stage_dir / PROBE).exists():
                shutil.copy2(stage_dir / PROBE, staging / PROBE)
            _check(staging / kind, record)
            if base is not None:
                _write_plain(staging / kind, base, staging / "lora")
            for file in staging.rglob("*"):
                if file.is_file():
                    _to_disk(file)
                    file.chmod(0o444)
            publish(staging, final, record)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return load_version(versions_dir, final.name)


def is_published(versions_dir: Path, name: str) -> bool:
    """Check whether there is a version of that name, whatever somebody asks for by it."""
    if Path(name).name != name or name.startswith("."):
        return False
    try:
        return (versions_dir / name / RECORD).is_file()
    except (OSError, ValueError):  # no file can have such a name: longer than 255 bytes, say
        return False


def load_version(versions_dir: Path, name: str, *, check: bool = True) -> VersionFile:
    """Load the version called `name`, its bytes checked against its record unless `check` is False.

    Raises:
        NotFound: there is none of that name.
        CorruptArtifact: it was changed, or its name is not that of its bytes.
    """
    folder = versions_dir / name
    record = read_record(folder) if Path(name).name == name else None
    if record is None:
        known = ", ".join(list_versions(versions_dir)[:10]) or "none"
        raise NotFound(f"no version {name!r} in {versions_dir} (there: {known}); publish it first")
    if version_name(record.digest) != name:
        raise CorruptArtifact(f"{folder} holds {version_name(record.digest)}; remove it and publish that one again")
    kind = _kind(folder)
    if check:
        _check(folder / kind, record)
    probe = folder / PROBE
    return VersionFile(
        name=name,
        kind=kind,
        path=folder / kind,
        probe=probe if probe.exists() else None,
        record=record,
        plain=folder / "lora" if (folder / "lora").is_dir() else None,
    )


def find_version(versions_dir: Path, stages_dir: Path, name: str, *, base: Path | None = None) -> VersionFile:
    """Find the version called `name`; a finished stage's that was never released is published first.

    Args:
        stages_dir: folder of finished stages.
        base: as for `publish_version`.

    Raises:
        NotFound: neither is there.
        CorruptArtifact: its bytes are not those that its record promises.
    """
    if name not in list_versions(versions_dir) and stages_dir.is_dir():
        for stage in sorted(stages_dir.iterdir()):
            record = read_record(stage) if stage.is_dir() else None
            if record is None or version_name(record.digest) != name:
                continue
            if record.parse_result(WeightsOrigin).product == "policy":  # a reward model answers nobody
                return publish_version(stage, versions_dir, base=base)
    return load_version(versions_dir, name)


def list_versions(versions_dir: Path) -> list[str]:
    """List the names of the versions that are wholly there, sorted."""
    if not versions_dir.is_dir():
        return []
    return sorted(p.name for p in versions_dir.iterdir() if p.name.startswith("v") and (p / RECORD).exists())


def _kind(folder: Path) -> Kind:
    for kind in ("adapter", "model"):
        if (folder / kind).is_dir():
            return kind
    raise CorruptArtifact(f"{folder} holds neither adapter/ nor model/; expected one of them; run its stage again")


def _check(weights: Path, record: Record) -> None:
    found = digest_dir(weights)
    if found != record.digest:
        raise CorruptArtifact(
            f"{weights} has digest {found[:16]}, its record says {record.digest[:16]}: the bytes were changed or cut; "
            "restore them or make them again"
        )


def converts(weights: Path) -> bool:
    """Check whether a folder holds an adapter that is written as the plain LoRA it equals when it is published."""
    from training.tuners.lora_conversion import converts as equals_lora

    return equals_lora(weights)


def _write_plain(weights: Path, base: Path, out: Path) -> None:
    from training.tuners.lora_conversion import to_plain_lora

    if converts(weights):
        to_plain_lora(weights, base, out)


def _to_disk(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
