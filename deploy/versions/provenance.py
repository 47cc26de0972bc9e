"""Trace versions to the training stages and the data that made them, by the records beside their weights."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path

from deploy.versions.versions import list_versions
from infra.artifact import Record, read_record
from infra.settings import Places


def trained_on(places: Places, digests: Set[str]) -> list[str]:
    """List the versions with a stage, or an earlier stage, that trained on data of these digests."""
    return versions_of(places, with_later_stages(places, stages_on(places, digests)), digests)


def stages_on(places: Places, digests: Set[str]) -> set[str]:
    """List the keys of the stages that trained on data of one of these digests."""
    return {key for key, record in _stages(places).items() if digests & set(record.parents.values())}


def with_later_stages(places: Places, keys: Set[str]) -> set[str]:
    """List these stages and all that began where one of them ended."""
    stages, keys = _stages(places), set(keys)
    while later := {k for k, r in stages.items() if k not in keys and r.parents.get("previous_stage") in keys}:
        keys |= later
    return keys


def versions_of(places: Places, stages: Set[str], digests: Set[str] = frozenset()) -> list[str]:
    """List the versions whose weights one of these stages made, or that name one of the digests themselves."""
    versions = []
    for version in list_versions(places.versions_dir):
        record = read_record(places.versions_dir / version)
        if record is not None and (
            record.key in stages
            or digests & set(record.parents.values())
            or record.parents.get("previous_stage") in stages
        ):
            versions.append(version)
    return versions


def stage_folders(places: Places) -> list[Path]:
    """List the folders of the stages, half-finished ones left out."""
    folder = places.stages_dir
    return [p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")] if folder.is_dir() else []


def _stages(places: Places) -> dict[str, Record]:
    return {record.key: record for folder in stage_folders(places) if (record := read_record(folder))}
