"""What no single section of the config can know: rules between sections, and things that must exist on this machine."""

from __future__ import annotations

from flows.config import PipelineConfig
from flows.config_errors import Mistake


def cross_check(config: PipelineConfig) -> list[Mistake]:
    """Mistakes between sections. Cheap: nothing is loaded, nothing asked over a network."""
    return [*_ports(config), *_tenants(config)]


def _ports(config: PipelineConfig) -> list[Mistake]:
    seen: dict[int, str] = {}
    mistakes = []
    for name in ("gateway_port", "engine_port", "prefect_port", "mlflow_port"):
        port = getattr(config.places, name)
        if port in seen:
            mistakes.append(
                Mistake(("places", name), f"got {port}, which is also {seen[port]}; expected a port of its own")
            )
        seen.setdefault(port, name)
    return mistakes


def _tenants(config: PipelineConfig) -> list[Mistake]:
    repeated = sorted({tenant for tenant in config.tenants if config.tenants.count(tenant) > 1})
    return [Mistake(("tenants",), f"{tenant!r} is named twice; name each tenant once") for tenant in repeated]
