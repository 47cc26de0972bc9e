"""`ratchet methods`, `advise`, `checkpoints`: list training methods, recommend one, list what a stage kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.output import DEFAULT_CONFIG, ConfigOption, JsonOption, TenantOption, as_json, load, note, say, table

if TYPE_CHECKING:
    from training.recipes.advisor import Advice
    from training.tuners.tuner import ModelShape

BaseOption = Annotated[
    Path | None, typer.Option("--base", help="Folder of a base model for the figures. Default: SmolLM2-135M.")
]
OtherBaseOption = Annotated[
    Path | None,
    typer.Option("--base", help="Folder of a base model for the figures. Default: the config's base_model."),
]


def methods(base: BaseOption = None, json: JsonOption = False) -> None:
    """Everything that can be named in the config: the matrix of objectives and tuners, recipes, metrics, sources."""
    from evaluation.judges import JUDGES
    from evaluation.metrics import METRICS
    from feedback.formats import FORMATS
    from feedback.sources import SOURCES
    from training.recipes.built_in import RECIPES
    from training.recipes.method_catalogue import methods_matrix

    matrix = methods_matrix(_shape(base))
    recipes = {
        name: " -> ".join(f"{stage.objective}+{stage.tuner}" for stage in recipe.stages)
        for name, recipe in RECIPES.items()
    }
    others = {
        "metrics": sorted(METRICS),
        "judges": sorted(JUDGES),
        "sources": sorted(SOURCES),
        "dialects": sorted(FORMATS),
    }
    if json:
        names = {
            "objectives": [row.name for row in matrix.objectives],
            "tuners": [row.name for row in matrix.tuners],
        }
        as_json({**names, **others, "recipes": recipes, "matrix": matrix.model_dump(mode="json")})
        return
    say(f"tuners: which weights move (figures for {base or 'SmolLM2-135M'}; memory: sft in bfloat16, default settings)")
    table(
        ("name", "trains", "saves", "memory", "time", "served by the embedded engine", "by vLLM", "merges"),
        (
            (
                row.name,
                f"{row.trains:,}",
                _size(row.saves_bytes),
                _size(row.memory_bytes),
                f"{row.cost:g}x",
                row.embedded,
                row.vllm,
                "yes" if row.merges else "no",
            )
            for row in matrix.tuners
        ),
    )
    say()
    say("objectives: what the loss asks")
    table(
        ("name", "learns from", "time", "what"),
        ((row.name, ", ".join(row.needs), f"{row.cost:g}x", row.summary) for row in matrix.objectives),
    )
    say()
    cells = len(matrix.tuners) * len(matrix.objectives)
    say(f"cells: {cells - len(matrix.refused)} of {cells} objective+tuner pairs can be trained")
    for cell, reason in matrix.refused.items():
        say(f"  not {cell}: {reason}")
    say()
    say("recipes (an objective with a tuner, in stages):")
    table(("name", "stages"), recipes.items())
    say()
    for axis, names_ in others.items():
        say(f"{axis}: {', '.join(names_)}")


def advise(
    wants: Annotated[
        str, typer.Option("--goal", help="task, style, knowledge, reasoning or shorter_prompts.")
    ] = "task",
    changes: Annotated[
        str, typer.Option(help="How often the facts behind answers change: never, monthly, weekly or daily.")
    ] = "never",
    gradable: Annotated[
        bool, typer.Option("--gradable/--not-gradable", help="Whether anybody can say if an answer is good.")
    ] = True,
    data: Annotated[
        Path | None, typer.Option(help="JSONL of examples to look at. Default: the latest snapshot.")
    ] = None,
    base: OtherBaseOption = None,
    memory_gb: Annotated[float | None, typer.Option(help="Memory to train in. Default: this machine's.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    tenant: TenantOption = None,
    json: JsonOption = False,
) -> None:
    """Recommend a recipe for a goal and your data, or say why not to train, with what it would take."""
    from pydantic import ValidationError

    from deploy.engines import SERVING_ENGINES
    from flows.planning.data_counts import counts_of_file, counts_of_last_snapshot
    from infra.errors import UserError
    from training.hardware import accelerators, best_dtype, memory_each
    from training.recipes.advisor import Goal
    from training.recipes.advisor import advise as recommend
    from training.recipes.base_offline import KnownBase, base_offline

    settings = load(config)
    try:
        goal = Goal.model_validate(
            {"wants": wants, "knowledge_changes": changes, "gradable": gradable, "memory_gb": memory_gb}
        )
    except ValidationError as error:
        wrong = error.errors()[0]
        raise UserError(f"{wrong['loc'][0]}: got {wrong['input']!r}; {wrong['msg']}") from None
    counts = counts_of_file(data) if data is not None else counts_of_last_snapshot(settings, tenant)
    if data is None and not counts:
        note("no snapshot yet: `ratchet data cut` makes one of what the lake holds, --data names a file of examples")
    cache, training = settings.places.cache_dir, settings.training
    dtype = best_dtype(cache) if training.dtype == "auto" else training.dtype
    known = base_offline(settings.base_model, cache) if base is None else KnownBase(name=str(base), shape=_shape(base))
    if known.shape is None:
        note(f"{known.why_not}: no memory or minutes are told; `ratchet doctor` fetches it, --base names a folder")
    gpus = accelerators().gpus
    advice = recommend(
        goal.model_copy(update={"dtype": dtype}),
        counts,
        known.shape,
        config=training,
        machine_bytes=memory_each(1, given_gb=training.memory_gb),
        machine=f"the GPU ({gpus[0].name})" if gpus and memory_gb is None else "the machine",
        lora_only=SERVING_ENGINES.named(settings.serving.engine).lora_only,
    )
    if json:
        figures = known.name if known.shape is not None else None
        as_json({"examples": counts, "figures_for": figures, **advice.model_dump(mode="json")})
    else:
        _say_advice(counts, advice, known.name)


def checkpoints(
    stage: Annotated[str, typer.Argument(help="Key of a finished stage, or its first characters.")],
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
) -> None:
    """List what a stage kept while it trained; `ratchet run nightly --checkpoint STAGE_KEY:STEP` examines one."""
    from training.stages.checkpoints import checkpoints_of

    kept = checkpoints_of(load(config).places.stages_dir, stage)
    if json:
        as_json([checkpoint.model_dump(mode="json") for checkpoint in kept])
    else:
        table(("checkpoint", "validation loss"), ((f"{c.stage[:12]}:{c.step}", f"{c.loss:.4f}") for c in kept))


def _say_advice(counts: dict[str, int], advice: Advice, base: str) -> None:
    say("examples: " + (", ".join(f"{n} {shape}" for shape, n in sorted(counts.items()) if n) or "none"))
    say(f"advice: {advice.verdict}" + (f" {advice.recipe}" if advice.recipe else ""))
    for reason in advice.reasons:
        say(f"  {reason}")
    if advice.stages:
        say(f"figures for {base}:")
        table(
            ("stage", "examples", "trains", "memory", "minutes", "learning rate"),
            (
                (
                    stage.stage,
                    stage.examples,
                    f"{stage.trained_parameters:,}",
                    _size(stage.memory_bytes),
                    f"{stage.minutes:.1f}",
                    f"{stage.learning_rate:g}",
                )
                for stage in advice.stages
            ),
        )
    for other in advice.instead:
        say(f"  not: {other}")


def _shape(base: Path | None) -> ModelShape:
    from infra.errors import NotFound
    from training.recipes.memory import SMOLLM2_135M, shape_of_folder

    if base is None:
        return SMOLLM2_135M
    if not (base / "config.json").is_file():
        raise NotFound(f"{base} has no config.json; expected the folder of a base model")
    return shape_of_folder(base)


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.3g} {unit}"
        count /= 1000
    raise AssertionError
