"""Make the first API keys of a pipeline, at the first `ratchet up`, in a file that only its owner can read."""

from __future__ import annotations

import json
import os
from pathlib import Path

from flows.config.pipeline import PipelineConfig
from infra.settings import Config

_SCOPES = {"app": ("chat", "feedback"), "reviewer": ("chat", "feedback", "trusted"), "admin": ("admin",)}


class FirstKeys(Config):
    """Where the first keys are."""

    file: Path
    """JSON of tenant -> purpose -> key, readable by its owner only."""
    made: bool
    """Whether this call made them."""

    def advice(self, config: PipelineConfig) -> str:
        """How to use them."""
        tenant = config.tenants[0]
        key = f"$(python -c \"import json; print(json.load(open('{self.file}'))['{tenant}']['app'])\")"
        return (
            f"API keys{' (new)' if self.made else ''}: {self.file}\n"
            f"  app       chats and sends feedback\n"
            f"  reviewer  the same; its labels are trusted and may stand in the gate set\n"
            f"  admin     pins versions\n"
            f"try: curl {config.places.gateway_url}/v1/chat/completions -H 'Content-Type: application/json' \\\n"
            f'       -H "Authorization: Bearer {key}" \\\n'
            f'       -d \'{{"model": "{config.pipeline}", "messages": [{{"role": "user", "content": "Hello"}}]}}\''
        )


def first_keys(config: PipelineConfig) -> FirstKeys:
    """Make one key per purpose and tenant, once; later calls find the file."""
    from deploy.api_keys import create_key
    from infra.database.open import open_database

    file = config.places.run_dir / "keys.json"
    keys: dict[str, dict[str, str]] = json.loads(file.read_text()) if file.exists() else {}
    missing = [tenant for tenant in config.tenants if tenant not in keys]
    if not missing:
        return FirstKeys(file=file, made=False)
    engine = open_database(config.places)
    for tenant in missing:
        keys[tenant] = {
            purpose: create_key(engine, tenant=tenant, name=f"{purpose} (first)", scopes=scopes)[0]
            for purpose, scopes in _SCOPES.items()
        }
    file.parent.mkdir(parents=True, exist_ok=True)
    staging = file.with_name(".keys.json.new")
    with os.fdopen(os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        out.write(json.dumps(keys, indent=2) + "\n")
    staging.replace(file)
    return FirstKeys(file=file, made=True)
