"""Identify, publish and verify artifacts: the key says what was asked for, the digest what bytes came out.

Beside every artifact stands `record.json`, written last and atomically. No record, no artifact: a half-written
folder is never read.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, JsonValue, ValidationError

from infra.database.connect import now
from infra.errors import CorruptArtifact
from infra.settings import in_a_line
from infra.stored_model import StoredFile

RECORD = "record.json"
Facts = TypeVar("Facts", bound=BaseModel)
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
_quoted = json.encoder.encode_basestring


def canonical_json(value: object) -> str:
    """Write JSON with sorted keys and no spaces: equal values give equal text. Pydantic models are dumped first.

    Raises:
        TypeError: the value holds something JSON cannot say, a path for example: places are not identity.
    """
    if type(value) is dict and all(type(k) is type(v) is str for k, v in value.items()):
        return "{" + ",".join([f"{_quoted(key)}:{_quoted(value[key])}" for key in sorted(value)]) + "}"  # much faster
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    return _CANONICAL.encode(value)


def key_of(value: object) -> str:
    """Fingerprint what was asked for: SHA-256 (hex) of its canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def version_name(digest: str) -> str:
    """Name the version whose weights have this digest (hex), as served: "v" and the digest's first 16 digits."""
    return f"v{digest[:16]}"


def digest_file(path: Path) -> str:
    """Hash a file's bytes: SHA-256 (hex)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_dir(path: Path) -> str:
    """Hash a folder: SHA-256 (hex) of names and bytes of all files below `path`, its `record.json` left out.

    Raises:
        CorruptArtifact: the folder does not exist or holds no file.
    """
    files = sorted(p for p in path.rglob("*") if p.is_file() and p != path / RECORD)
    if not files:
        raise CorruptArtifact(f"{path} holds no files; expected an artifact; make it again")
    total = hashlib.sha256()
    for file in files:
        total.update(f"{file.relative_to(path).as_posix()}\0{digest_file(file)}\n".encode())
    return total.hexdigest()


class Record(StoredFile):
    """What an artifact is, in `record.json` beside it.

    `config` and `result` have a model beside their producer: read them by `parse_config` and `parse_result`.
    """

    kind_of_file = "record"

    name: str
    """What it is, for people."""
    key: str
    """Fingerprint of what was asked for."""
    digest: str
    """Hash of the bytes that came out."""
    parents: Mapping[str, str] = {}
    """Role -> key or digest of what it was made from."""
    config: Mapping[str, Any] = {}
    """The config that ran."""
    versions: Mapping[str, str] = {}
    """Versions of the packages that matter."""
    result: Mapping[str, Any] = {}
    """What came out: measures and names."""
    created_at: datetime
    """When it was finished (UTC). Not part of any identity."""

    def parse_config(self, model: type[Facts]) -> Facts:
        """Read the config that ran as the model of its producer.

        Raises:
            CorruptArtifact: it is not of that model.
        """
        return self._parse("config", self.config, model)

    def parse_result(self, model: type[Facts]) -> Facts:
        """Read what came out as the model of its producer.

        Raises:
            CorruptArtifact: it is not of that model.
        """
        return self._parse("result", self.result, model)

    def _parse(self, part: str, facts: object, model: type[Facts]) -> Facts:
        try:
            return model.model_validate(facts)
        except ValidationError as error:
            raise CorruptArtifact(
                f"the {part} in the record of {self.name} is no {model.__name__} ({in_a_line(error)}); make it again"
            ) from error


def atomic_write(path: Path, content: str | bytes) -> None:
    """Write `content` so that a reader sees the old file or the new one, also after a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    data = content.encode() if isinstance(content, str) else content
    with staging.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    staging.replace(path)
    _sync_dir(path.parent)


def write_record(directory: Path, record: Record) -> None:
    """Write `record.json` atomically; call it last."""
    atomic_write(directory / RECORD, record.model_dump_json(indent=2) + "\n")


def read_record(directory: Path) -> Record | None:
    """Read the record beside an artifact; None where the artifact is not (wholly) there.

    Raises:
        CorruptArtifact: there is a record but it cannot be read.
    """
    path = directory / RECORD
    try:
        written = path.read_bytes()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        # A name that somebody asked for and that no file can have: too long, or with a character that none may hold.
        if isinstance(error, OSError) and error.errno not in (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EINVAL):
            raise
        return None
    try:
        return Record.model_validate_json(written)
    except ValidationError as error:
        raise CorruptArtifact(f"{path} is not a record ({error.error_count()} errors); remove {directory}") from error


def verify(directory: Path, weights: Path | None = None) -> Record:
    """Check that the bytes below `weights` (default: `directory`) are those that the record promises.

    Raises:
        CorruptArtifact: no record, or other bytes.
    """
    record = read_record(directory)
    if record is None:
        raise CorruptArtifact(f"{directory} has no {RECORD}: it was not finished; make it again")
    digest = digest_dir(weights or directory)
    if digest != record.digest:
        raise CorruptArtifact(
            f"{directory} was changed after it was made: digest {digest[:16]}, record says {record.digest[:16]}; "
            "restore it or make it again"
        )
    return record


def publish(staging: Path, final: Path, record: Record) -> Record:
    """Move a finished folder to its place in one step, its record written first inside.

    If another process published the same key meanwhile, its artifact stays and ours is dropped.

    Returns:
        The record that now stands at `final`.
    """
    existing = read_record(final)
    if existing is not None:
        shutil.rmtree(staging)
        return existing
    write_record(staging, record)
    final.parent.mkdir(parents=True, exist_ok=True)
    while True:
        try:
            staging.rename(final)
            break
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            winner = read_record(final)
            if winner is not None:
                shutil.rmtree(staging)
                return winner
        # Half-written by somebody who died. It is moved away and looked at again before it is removed: meanwhile
        # another publisher may have put a finished one in its place, which must not be the one removed.
        aside = final.with_name(f".{final.name}.{uuid.uuid4().hex}.aside")
        with contextlib.suppress(FileNotFoundError):
            final.rename(aside)
            if read_record(aside) is not None:
                with contextlib.suppress(OSError):
                    aside.rename(final)
            shutil.rmtree(aside, ignore_errors=True)
    _sync_dir(final.parent)
    return record


def finished_record(
    *,
    name: str,
    key: str,
    digest: str,
    parents: Mapping[str, str] | None = None,
    config: BaseModel | Mapping[str, JsonValue] | None = None,
    versions: Mapping[str, str] | None = None,
    result: BaseModel | Mapping[str, JsonValue] | None = None,
) -> Record:
    """Make a record stamped with the time; models become JSON."""
    return Record(
        name=name,
        key=key,
        digest=digest,
        parents=parents or {},
        config=_as_json(config),
        versions=versions or {},
        result=_as_json(result),
        created_at=now(),
    )


def _as_json(facts: BaseModel | Mapping[str, JsonValue] | None) -> Mapping[str, JsonValue]:
    return facts.model_dump(mode="json", by_alias=True) if isinstance(facts, BaseModel) else facts or {}


def _sync_dir(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
