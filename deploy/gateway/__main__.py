"""``python -m deploy.gateway gateway.json``"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from infra.errors import ConfigError


def main(argv: list[str]) -> int:
    """Serve until SIGTERM; running answers end first."""
    import uvicorn

    from deploy.gateway.app import build_app
    from deploy.registry_hook import HOOK_SECRET
    from deploy.serving import ENGINE_KEY, GatewayJob
    from feedback.salt import SALT
    from infra.owner_only import close_files
    from infra.settings import secret
    from infra.tracing import start_tracing, stop_tracing

    close_files()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    if len(argv) != 1:
        raise ConfigError(f"expected one argument, a gateway.json; got {argv}")
    job = GatewayJob.model_validate_json(Path(argv[0]).read_text())
    start_tracing("ratchet-gateway")
    app = build_app(job, engine_key=secret(ENGINE_KEY), user_salt=secret(SALT), hook_secret=os.environ.get(HOOK_SECRET))
    uvicorn.run(
        app, host=job.host, port=job.port, log_level="warning", timeout_keep_alive=75, timeout_graceful_shutdown=30
    )
    stop_tracing()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
