"""Check the machine and the pipeline before anything is started (`ratchet doctor`): each check says what to do."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from flows.config.pipeline import PipelineConfig
from flows.stack.doctor_hardware import examine_hardware
from flows.stack.finding import Finding
from infra.errors import RatchetError
from infra.file_permissions import open_to_others
from infra.processes import stack
from infra.processes.identity import port_taken
from infra.settings import Places
from infra.sign_in import mlflow_login, prefect_headers

if TYPE_CHECKING:
    pass

# What newer versions of these break is told in docs/; each pin is also in pyproject.toml.
_PINNED = {"fastapi": (0, 151), "sqlalchemy": (2, 1), "pandas": (3, 1)}
_NEEDED = (
    "torch",
    "transformers",
    "peft",
    "trl",
    "prefect",
    "mlflow",
    "flask-wtf",
    "great-expectations",
    "deltalake",
    "polars",
)


def examine(config: PipelineConfig) -> Iterator[Finding]:
    """Run all checks, one after the other; none of them changes anything."""
    yield _python()
    yield from _packages()
    yield from examine_hardware(config)
    yield _disk(config.places.home_dir)
    yield _home(config.places.home_dir)
    yield from _ports(config)
    yield from _sign_in(config.places)
    yield _base(config)
    yield _gate(config)
    yield from _mlflow(config)


def _python() -> Finding:
    found = platform.python_version()
    good = sys.version_info[:2] == (3, 11)
    return Finding(
        check="Python",
        state="ok" if good else "warning",
        result=found,
        advice="" if good else "Ratchet is tested with 3.11 only",
    )


def _packages() -> Iterator[Finding]:
    for name in (*_NEEDED, *_PINNED):
        try:
            found = version(name)
        except PackageNotFoundError:
            yield Finding(
                check=name, state="problem", result="not installed", advice="pip install -e . -c constraints.txt"
            )
            continue
        below = _PINNED.get(name)
        bad = below is not None and tuple(int(part) for part in found.split(".")[:2]) >= below
        advice = (
            f"install {name}<{'.'.join(map(str, below))}: newer ones break Prefect or evidently"
            if bad and below
            else ""
        )
        yield Finding(check=name, state="problem" if bad else "ok", result=found, advice=advice)


def _disk(home: Path) -> Finding:
    place = home
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free / 1e9
    return Finding(
        check="disk",
        state="ok" if free > 10 else "warning" if free > 3 else "problem",
        result=f"{free:.0f} GB free at {place}",
        advice=""
        if free > 10
        else "a night keeps checkpoints, versions and logs: leave 10 GB free, or move places.home",
    )


def _home(home: Path) -> Finding:
    """Whether what people said is its owner's alone."""
    if not home.exists() or not open_to_others(home):
        return Finding(check="home", state="ok", result=f"{home} is its owner's alone")
    mine = home.stat().st_uid == os.geteuid()
    return Finding(
        check="home",
        # The root of a mounted volume is often another's; who may look in there, its mount decides.
        state="problem" if mine else "warning",
        result=f"others of this machine may look into {home}, which holds what people said",
        advice=f"chmod 700 {home}" if mine else "let nobody else mount it, or give it to the user that runs Ratchet",
    )


def _sign_in(places: Places) -> Iterator[Finding]:
    """Whether Prefect and MLflow, where they answer, ask who is there. Who reaches Prefect can start any command."""
    servers: tuple[tuple[str, str, bool, dict[str, str], tuple[str, str] | None], ...] = (
        ("Prefect", f"{places.prefect_api}/admin/version", places.prefect_api_url is None, prefect_headers(), None),
        ("MLflow", f"{places.mlflow}/ajax-api/2.0/mlflow/experiments/search?max_results=1",
         places.mlflow_url is None, {}, mlflow_login()),
    )  # fmt: skip
    for name, url, ours, headers, login in servers:
        stranger = _status(url, {}, None)
        if stranger is None:
            continue
        what = f"sign-in of {name}"
        if stranger != 401:
            advice = "it was started by an older release: `ratchet down`, then `ratchet up`" if ours else "switch it on"
            found = f"it answers whoever asks ({stranger})"
            yield Finding(check=what, state="problem" if ours else "warning", result=found, advice=advice)
        elif (known := _status(url, headers, login)) == 200:
            yield Finding(check=what, state="ok", result="asked for, and ours is taken")
        else:
            advice = "the environment holds another one than the server was started with: see `ratchet sign-in`"
            yield Finding(check=what, state="problem", result=f"ours is refused ({known})", advice=advice)


def _status(url: str, headers: Mapping[str, str], login: tuple[str, str] | None) -> int | None:
    """HTTP status of an address; None where nobody answers."""
    import httpx

    try:
        return httpx.get(url, headers=dict(headers), auth=login, timeout=5.0, trust_env=False).status_code
    except httpx.HTTPError:
        return None


def _ports(config: PipelineConfig) -> Iterator[Finding]:
    running = {part.name for part in stack.status(config.places.run_dir).parts if part.pid is not None}
    owners = {"prefect": "prefect_port", "mlflow": "mlflow_port", "engine": "engine_port", "gateway": "gateway_port"}
    for owner, key in owners.items():
        port = getattr(config.places, key)
        if owner in running:
            yield Finding(check=f"port {port}", state="ok", result=f"our own {owner}")
        elif port_taken(config.places.host, port):
            advice = f"stop that program, or set places.{key} to another port"
            yield Finding(check=f"port {port}", state="problem", result=f"taken, {owner} wants it", advice=advice)
        else:
            yield Finding(check=f"port {port}", state="ok", result=f"free for {owner}")


def _base(config: PipelineConfig) -> Finding:
    from training.base_model import resolve_base

    try:
        base = resolve_base(config.base_model, config.places.cache_dir)
    except RatchetError as error:
        return Finding(check="base model", state="problem", result=str(error), advice="see base_model in the config")
    return Finding(check="base model", state="ok", result=f"{base.version} from {base.source}: {base.path}")


def _gate(config: PipelineConfig) -> Finding:
    """Compute what gain the gate can detect, so that nobody waits years for a promotion."""
    from evaluation.gate.power import describe_power, minimum_detectable_effect
    from flows.planning.gate_power import next_night

    units = config.gate.min_units
    planned = max((next_night(config, tenant) for tenant in config.tenants), key=lambda night: night.challengers)
    challengers = planned.challengers
    detectable = minimum_detectable_effect(config.gate, units, challengers=challengers)
    return Finding(
        check="gate",
        state="ok" if detectable < 0.2 else "warning",
        result="; ".join((describe_power(config.gate, units, challengers=challengers), *planned.notes)),
        advice="" if detectable < 0.2 else "collect more trusted labels, or accept more wrong promotions a year",
    )


def _mlflow(config: PipelineConfig) -> Iterator[Finding]:
    """Whether MLflow takes what it is told: asked where it runs, else by what waits for it."""
    from infra.telemetry.mlflow_journal import refusals

    waiting = dict(refusals(config.places.nights_dir))
    running = {part.name for part in stack.status(config.places.run_dir).parts if part.pid is not None}
    if config.places.mlflow_url is not None or "mlflow" in running:
        for why in _refused_now(config):
            waiting.setdefault(why, 0)
    for why, operations in waiting.items():
        advice = "mend it; then all of it lands" + (f" ({operations} operations wait)" if operations else "")
        yield Finding(check="MLflow", state="warning", result=why, advice=advice)


def _refused_now(config: PipelineConfig) -> Iterator[str]:
    from deploy.registry.model_registry import EXPERIMENT
    from infra.telemetry.mlflow_refusals import experiment_refused

    for name in (config.pipeline, EXPERIMENT):
        try:
            why = experiment_refused(config.places.mlflow, name)
        except RatchetError as error:
            yield str(error)
            return
        if why is not None:
            yield why
