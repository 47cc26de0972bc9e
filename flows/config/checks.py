"""Check the config across sections: rules between them, and things that must exist on this machine."""

from __future__ import annotations

from pathlib import Path

from deploy.engines import SERVING_ENGINES
from flows.config.errors import Mistake, nearest
from flows.config.pipeline import PipelineConfig
from flows.config.yaml_file import KeyPath
from infra.errors import UserError
from training.sequence_mixers import check_folder


def cross_check(config: PipelineConfig) -> list[Mistake]:
    """Mistakes between sections. Cheap: nothing is loaded, nothing asked over a network."""
    return [
        *_ports(config),
        *_tenants(config),
        *_sources(config),
        *_base_model(config),
        *_metrics(config),
        *_judges_and_tasks(config),
        *_canary(config),
        *_servable(config),
    ]


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


def _sources(config: PipelineConfig) -> list[Mistake]:
    """Each source has a name of its own, by which it is followed, and brings data of a tenant that there is."""
    mistakes = []
    names = [spec.name for spec in config.ingest.sources]
    for place, spec in enumerate(config.ingest.sources):
        if spec.name in names[:place]:
            where = ("ingest", "sources", place, "name")
            mistakes.append(
                Mistake(where, f"got {spec.name!r}, as another source is called; expected a name of its own")
            )
        tenant = getattr(spec.parsed(), "tenant", None)
        if tenant is not None and tenant not in config.tenants:
            expected = f"expected one of {', '.join(config.tenants)}"
            mistakes.append(Mistake(("ingest", "sources", place, "options", "tenant"), f"got {tenant!r}, {expected}"))
    return mistakes


def _base_model(config: PipelineConfig) -> list[Mistake]:
    base = config.base_model
    if not base.startswith(("/", "~")):
        # A hub name: whether it can be reached is a question to the network, which `ratchet doctor` asks.
        return []
    folder = Path(base).expanduser()
    if not folder.is_dir():
        return [
            Mistake(("base_model",), f"no folder {folder}; expected a model folder, or a hub name such as owner/model")
        ]
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        return [
            Mistake(("base_model",), f"{folder} is not a model folder: expected config.json and *.safetensors in it")
        ]
    try:
        check_folder(folder)
    except UserError as error:
        return [Mistake(("base_model",), str(error))]
    return []


def _metrics(config: PipelineConfig) -> list[Mistake]:
    from evaluation.abilities.bundled_pack import ACCURACY, LOSS, PROBABILITY
    from evaluation.metrics import METRICS
    from training.graders import OWN

    asked = [*config.evaluation.metrics, *_win_rates(config)]
    asked += [ACCURACY, PROBABILITY, LOSS] if config.evaluation.regression else []
    wanted: list[tuple[KeyPath, str]] = [
        (("evaluation", "metrics", index), name) for index, name in enumerate(config.evaluation.metrics)
    ]
    mistakes = [
        Mistake(path, f"unknown metric {name!r}{nearest(name, list(METRICS))}")
        for path, name in wanted
        if name not in METRICS and not (name.startswith("python:") and OWN.match(name))
    ]
    gate: list[tuple[KeyPath, str]] = [(("gate", "primary"), config.gate.primary)]
    gate += [(("gate", "guards", index, "metric"), guard.metric) for index, guard in enumerate(config.gate.guards)]
    for path, name in gate:
        if name not in asked:
            mistakes.append(Mistake(path, f"metric {name!r} is not measured{nearest(name, asked)}"))
    if any(name == "unsafe" for _, name in gate) and config.evaluation.safety is None:
        text = "the gate asks for the metric unsafe, which a classifier gives; expected one here"
        mistakes.append(Mistake(("evaluation", "safety"), text))
    budget = config.gate.forgetting
    if budget is not None and budget.required and budget.metric not in asked:
        text = (
            f"{budget.metric} is required and not measured, so every night would be inconclusive; expected "
            "evaluation.regression to be on, forgetting.required: false, or forgetting: null"
        )
        mistakes.append(Mistake(("gate", "forgetting"), text))
    return mistakes


def _win_rates(config: PipelineConfig) -> list[str]:
    """Every win-rate that the configured judges may give."""
    from evaluation.run.win_rates import OPPONENTS, win_rate_name

    names = [
        win_rate_name(index, judge.name, against)
        for index, judge in enumerate(config.evaluation.judges)
        for against in OPPONENTS
    ]
    return [*names, *(f"{name}_raw" for name in names)]


def _judges_and_tasks(config: PipelineConfig) -> list[Mistake]:
    from evaluation.abilities.lm_eval_names import task_names, unknown_tasks
    from evaluation.judges import JUDGES

    mistakes = [
        Mistake(
            ("evaluation", "judges", index, "name"), f"unknown judge {judge.name!r}{nearest(judge.name, [*JUDGES])}"
        )
        for index, judge in enumerate(config.evaluation.judges)
        if judge.name not in JUDGES
    ]
    asked = config.evaluation.regression_tasks
    unknown = unknown_tasks(asked)
    return mistakes + [
        Mistake(
            ("evaluation", "regression_tasks", index),
            f"lm-eval knows no task {name!r}{nearest(name, sorted(task_names()))}; `lm-eval ls tasks` lists them",
        )
        for index, name in enumerate(asked)
        if name in unknown
    ]


def _canary(config: PipelineConfig) -> list[Mistake]:
    policy = config.canary
    mistakes = []
    if config.serving.upstream_url is not None and policy.shadow_share == 0:
        text = (
            "got 0, but serving.upstream_url stays the champion: versions can answer in shadow only; expected above 0"
        )
        mistakes.append(Mistake(("canary", "shadow_share"), text))
    if policy.expected_rated_per_day is None:
        return mistakes
    from deploy.canary.power import plan

    found = plan(
        policy,
        rated_per_day=policy.expected_rated_per_day,
        satisfied=policy.expected_satisfied,
        drop=policy.worth_seeing,
    )
    for what, power, required in (
        (f"a version worse by {policy.worth_seeing:.0%} goes back", found.power_back, found.required_back),
        (f"an equal version goes forward (margin {policy.margin:.0%})", found.power_forward, found.required_forward),
    ):
        if power < 0.8:
            days = policy.deadline_seconds / 86_400
            text = (
                f"by then {what} with {power:.0%} power only: {found.rated_by_deadline} users will have rated in "
                f"{days:g} days, {required} are needed for 80%; expected a later deadline, larger steps or more ratings"
            )
            mistakes.append(Mistake(("canary", "deadline_seconds"), text))
    return mistakes


def _servable(config: PipelineConfig) -> list[Mistake]:
    """Recipes named in the config whose result the configured engine could not serve."""
    if config.serving.engine not in SERVING_ENGINES:
        return [Mistake(("serving", "engine"), SERVING_ENGINES.unknown(config.serving.engine))]
    if not SERVING_ENGINES.named(config.serving.engine).lora_only or config.training.methods == "auto":
        return []  # auto leaves them out by itself, and says why
    from training.recipes.built_in import recipe_named

    mistakes = []
    for index, name in enumerate(config.training.methods):
        reason = recipe_named(name, config.training.recipes).why_not_lora
        if reason is not None:
            mistakes.append(Mistake(("training", "methods", index), f"got {name!r}: {reason}"))
    return mistakes
