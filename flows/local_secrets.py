"""Secrets of a local stack: made once, kept in a file that only its owner can read, handed on by the environment."""

from __future__ import annotations

import base64
import os
from collections.abc import MutableMapping
from pathlib import Path

SECRET_NAMES = (
    "RATCHET_USER_SALT",
    "RATCHET_ENGINE_KEY",
    "RATCHET_WEBHOOK_SECRET",
    "RATCHET_MLFLOW_WEBHOOK_SECRET",
    # MLflow's own name. It encrypts its webhooks' secrets with it, and without one it cannot read them after a restart.
    "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY",
)


def load_secrets(
    run_dir: Path, environment: MutableMapping[str, str] | None = None, *, first_salt: str | None = None
) -> None:
    """Put each secret into the environment: the one set there already, else the one in ``secrets.env``, else a new one.

    The salt must never change for a store (users' hashes hang on it), which is why it is kept.

    Args:
        first_salt: what a new salt is, for people who exist nowhere: with it the same invented people get the same
            pseudonyms, so the same places in every split. Default: random bytes, as real people need.
    """
    target = os.environ if environment is None else environment
    file = run_dir / "secrets.env"
    known = _read(file)
    missing = [name for name in SECRET_NAMES if not target.get(name) and name not in known]
    if missing:
        known.update({name: _new() for name in missing})
        if first_salt is not None and "RATCHET_USER_SALT" in missing:
            known["RATCHET_USER_SALT"] = first_salt
        _write(file, known)
    for name, value in known.items():
        if name in SECRET_NAMES and not target.get(name):
            target[name] = value


def _new() -> str:
    """32 random bytes in the form of a Fernet key, which MLflow asks for; the others are content with it."""
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


def _read(file: Path) -> dict[str, str]:
    if not file.exists():
        return {}
    lines = file.read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def _write(file: Path, values: dict[str, str]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    staging = file.with_name(".secrets.env.new")
    # Created closed: a moment of being readable is a moment too long.
    descriptor = os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as out:
        out.write("# Made by `ratchet up`. Keep it: users' hashes depend on RATCHET_USER_SALT.\n")
        out.writelines(f"{name}={value}\n" for name, value in sorted(values.items()))
        out.flush()
        os.fsync(out.fileno())
    staging.replace(file)
