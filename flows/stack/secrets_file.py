"""Keep the secrets of a local stack: made once, in a file that only its owner can read."""

from __future__ import annotations

import base64
import os
from collections.abc import MutableMapping
from pathlib import Path

from infra.processes.locks import file_lock
from infra.settings import Places
from infra.sign_in import MLFLOW_PASSWORD, MLFLOW_USER, PREFECT_SIGN_IN

OUR_SECRETS = (
    "RATCHET_USER_SALT",
    "RATCHET_ENGINE_KEY",
    "RATCHET_WEBHOOK_SECRET",
)
PREFECT_SECRETS = (PREFECT_SIGN_IN,)
"""Of a Prefect server that is ours. One that the config names by URL has its own, set by whoever runs it."""
MLFLOW_SECRETS = (MLFLOW_USER, MLFLOW_PASSWORD, "MLFLOW_FLASK_SERVER_SECRET_KEY")
"""Of an MLflow server that is ours, likewise."""
SECRET_NAMES = (*OUR_SECRETS, *PREFECT_SECRETS, *MLFLOW_SECRETS)
"""All that the file may hold."""

USER = "ratchet"
"""Who signs in at the local servers."""

SERVERS_SIDE = {
    "PREFECT_SERVER_API_AUTH_STRING": PREFECT_SIGN_IN,
    "MLFLOW_AUTH_ADMIN_USERNAME": MLFLOW_USER,
    "MLFLOW_AUTH_ADMIN_PASSWORD": MLFLOW_PASSWORD,
}
"""By what name a server knows what its clients send. They come by the environment too, because a stack's plan, which
holds the rest of its environment, is a file."""


def load_secrets(
    places: Places, environment: MutableMapping[str, str] | None = None, *, first_salt: str | None = None
) -> None:
    """Put each secret into the environment: the one set there already, else the one in ``secrets.env``, else a new one.

    The salt must never change for a store (users' hashes hang on it), which is why it is kept. The sign-in of a server
    that is not ours is not made up.

    Args:
        first_salt: what a new salt is, for people who exist nowhere: with it the same invented people get the same
            pseudonyms, so the same places in every split. Default: random bytes, as real people need.
    """
    target = os.environ if environment is None else environment
    file = places.run_dir / "secrets.env"
    known = _read(file)
    ours = _names(places)
    if any(not target.get(name) and name not in known for name in ours):
        # One process at a time: two that made one each would not understand each other.
        with file_lock(places.run_dir / "secrets.lock"):
            known = _read(file)
            missing = [name for name in ours if not target.get(name) and name not in known]
            known.update({name: _new(name) for name in missing})
            if first_salt is not None and "RATCHET_USER_SALT" in missing:
                known["RATCHET_USER_SALT"] = first_salt
            _write(file, known)
    for name in ours:
        if not target.get(name):
            target[name] = known[name]
    for name, client in SERVERS_SIDE.items():
        if client in ours:
            target[name] = target[client]


def _names(places: Places) -> tuple[str, ...]:
    prefect = PREFECT_SECRETS if places.prefect_api_url is None else ()
    return (*OUR_SECRETS, *prefect, *(MLFLOW_SECRETS if places.mlflow_url is None else ()))


def _new(name: str) -> str:
    """32 random bytes as text."""
    made = base64.urlsafe_b64encode(os.urandom(32)).decode()
    if name == PREFECT_SIGN_IN:
        return f"{USER}:{made}"
    return USER if name == MLFLOW_USER else made


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
