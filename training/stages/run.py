"""Run one stage: data to tokens, tokens to weights, weights to an artifact. Resumes where it was killed.

python -m training job.json
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.artifact import Record, atomic_write, digest_dir, publish, read_record, version_name
from infra.errors import CorruptArtifact, NotFound, UserError
from infra.processes.locks import file_lock
from infra.processes.progress import FILE
from training.objectives import Objective, objective_named
from training.stages.job import StageJob
from training.stages.output import is_plain_lora, record_of, save_version
from training.tuners import Tuner, tuner_named

if TYPE_CHECKING:
    from training.engines.native.loop.callbacks import Watch
    from training.engines.native.loop.step import Collator
    from training.engines.native.loop.trainer import StageTrainer
    from training.engines.native.packing.tokenization import Item

log = logging.getLogger(__name__)


def run_stage(job: StageJob) -> Record:
    """Train the stage, or return its record if somebody finished it.

    Raises:
        UserError: the data or the settings cannot be trained on.
        Diverged: the loss left the range of numbers, or spiked.
        CorruptArtifact: an input is not what the job says it is.
    """
    from training.engines.native.kernels.distributed import first, group, told, wait

    with group(job.world_size), file_lock(job.stages_dir / f".{job.key}.lock") if first() else contextlib.nullcontext():
        existing = read_record(job.final)
        if not told(existing is not None):
            job.work.mkdir(parents=True, exist_ok=True)
            _train(job)
            if first():
                shutil.rmtree(job.work, ignore_errors=True)
            wait()
    record = existing or read_record(job.final)
    assert record is not None, "it has just been published"
    return record


def _train(job: StageJob) -> None:
    import torch
    from transformers import set_seed

    from training.engines.native.kernels.distributed import first, split, world
    from training.engines.native.online.reward_model import pairs_of, scores, standardise, virtual_tokens
    from training.hardware import peak_bytes
    from training.stages.components import make_rollouts, make_teacher, measured_by
    from training.stages.dataset import prepared, read_supply
    from training.stages.loading import load_for_stage, packs
    from training.stages.probe import probe_ids, take_probe
    from training.stages.trained_scores import score_as_trained
    from training.weights.files import load_trained
    from training.weights.heads import attach_head, detach_head

    torch.set_num_threads(job.threads)
    started = time.monotonic()
    for name, choice in job.chosen.items():
        log.info("%s = %s", name, choice)
    _check_inputs(job)
    tuner, (objective, options) = tuner_named(job.spec.tuner), _asked(job)
    _refuse_together(job, objective, tuner)
    supply = read_supply(job, objective, options)
    # Beside what was left to a rule: that nothing is rehearsed is told by the data, not by the settings.
    untold = {f"replay.{kind}": f"none: {why}" for kind, why in supply.not_replayed.items()}
    job = job.model_copy(update={"chosen": {**job.chosen, **untold}})

    set_seed(job.seed)
    model, rebased = load_for_stage(job, tuner)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    head = attach_head(model) if objective.reads & {"score", "values"} else None
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    collator = _collator(job, objective, packs(inner, tuner))
    offset = virtual_tokens(model)
    rollouts = make_rollouts(job, objective, options, model, head, collator, offset)
    if objective.prepare is not None and rollouts is not None:
        supply = prepared(job, objective, options, supply, rollouts)
    order = supply.order(job, objective.online.updates(options) if objective.online else 1)
    train, validation = supply.train, supply.validation
    fresh = job.previous is None or job.previous.kind == "model" or job.spec.starts_from != "previous"
    if objective.reference:
        # Virtual tokens begin as words, not as nothing: what the stage starts from is then the model without them.
        with contextlib.nullcontext() if tuner.begins_as_base or not fresh else model.disable_adapter():
            before = offset if tuner.begins_as_base or not fresh else 0
            train, validation = _with_reference(job, model, train, validation, order, collator, before)

    model = split(model)
    parts = {
        "head": head,
        "teacher": make_teacher(job, objective, model, rollouts, offset),
        "rollouts": rollouts,
        "during": tuner.during if fresh else None,
    }
    trainer, watch = _trainer(
        job, objective, options, model, [train[i] for i in order], validation, collator, offset, parts
    )
    checkpoint = _resume_point(job)
    if checkpoint is not None:
        log.info("goes on from step %s", checkpoint.name.split("-")[1])
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)

    best = _take_best(job, trainer)
    if world() > 1:
        trainer.keep(job.work / "gathered")
        if not first():
            return
        set_seed(job.seed)
        model, rebased = load_for_stage(job, tuner)  # whole again, in this process alone
        load_trained(model, job.work / "gathered")
    if rollouts is not None:
        rollouts.close()
    if objective.product == "policy":
        detach_head(model)
    elif head is not None:
        model.eval()
        found = scores(model, head, pairs_of(supply.own), job.spec.tokens_per_pass, collator.pack)
        standardise(head, found[0::2], found[1::2])
    kind = "model" if rebased or tuner.saves == "model" else "adapter"
    staging = job.work / "final"
    shutil.rmtree(staging, ignore_errors=True)
    weights = staging / kind
    as_trained = score_as_trained(model, job, tuner, lambda: probe_ids(job.base.path))
    save_version(model, weights, kind, job)
    if objective.product == "reward" and head is not None:
        head.save(weights)
    digest = digest_dir(weights)
    from training.engines.native.loop.callbacks import evaluations, held_out_metrics
    from training.engines.native.loop.overfitting import parted

    result: dict[str, Any] = {
        "kind": kind,
        "version": version_name(digest),
        "label": job.label,
        "product": objective.product,
        "examples": len(supply.own),
        "replayed": supply.replayed,
        "validation_examples": len(validation),
        "left_out": supply.left_out,
        "steps": trainer.state.global_step,
        "planned_steps": trainer.state.max_steps,
        "stopped_early": watch.stopped_early,
        "train_and_held_out_part_at": parted(trainer.state.log_history),
        "best_step": best["step"] if best else trainer.state.global_step,
        "validation_loss": best["loss"] if best else None,
        "validation_losses": evaluations(trainer.state),
        "validation_metrics": held_out_metrics(trainer.state, best["step"] if best else None),
        "optimised_against": sorted({*job.optimised_against, *measured_by(job, objective, options, supply.own)}),
        "grader_failures": rollouts.grading.failures if rollouts is not None else 0,
        "train_loss": _last_loss(trainer.state.log_history),
        "trained_parameters": trained,
        "peak_bytes": peak_bytes(),
        "bytes": sum(p.stat().st_size for p in weights.rglob("*") if p.is_file()),
        "tokens": trainer.tokens_seen,
        "resumed_at": int(checkpoint.name.split("-")[1]) if checkpoint else 0,
        "served": "model" if kind == "model" else "shared" if is_plain_lora(weights) else tuner.served,
    }
    # The probe loads the base once more: what was trained has to be out of memory by then, loops of references too.
    del trainer, watch, model, inner, head, rollouts, parts
    gc.collect()
    probe = take_probe(job.base.path, weights, kind, job.dtype, staging, as_trained=as_trained)  # type: ignore[arg-type]
    result |= {"probe_effect": probe.effect, "servable": probe.servable, "seconds": time.monotonic() - started}
    if probe.refused:
        log.warning("%s", probe.refused)
    shutil.copy(job.work / FILE, staging / FILE)
    if (job.work / "kept").is_dir():
        from training.stages.checkpoints import FOLDER, JOB

        shutil.copytree(job.work / "kept", staging / FOLDER)
        (staging / FOLDER / JOB).write_text(job.model_dump_json(indent=2) + "\n")
    publish(staging, job.final, record_of(job, digest, result))


def _refuse_together(job: StageJob, objective: Objective, tuner: Tuner) -> None:
    """What several processes cannot train together yet, said before anything is loaded."""
    if job.world_size == 1:
        return
    what = None
    if objective.online or objective.teacher or objective.reads:
        what = f"{objective.name}, which samples or reads more than log-probabilities,"
    elif tuner.during is not None or tuner.quantised:
        what = tuner.name
    if what is not None:
        raise UserError(f"{what} cannot be trained by several processes together; say processes: 1")


def _check_inputs(job: StageJob) -> None:
    """Trust no path: the job says which bytes it means."""
    from infra.artifact import digest_file

    for file, digest in ((job.train, job.train_digest), (job.validation, job.validation_digest)):
        if not file.is_file():
            raise NotFound(f"training data {file} does not exist any more; cut the snapshot again")
        if digest_file(file) != digest:
            raise CorruptArtifact(f"{file} is not the file the job was made for; make the job again")
    for before in (job.previous, job.reward):
        if before is None:
            continue
        weights = before.path / before.kind
        if not weights.is_dir() or digest_dir(weights) != before.digest:
            raise CorruptArtifact(f"{weights} is not what stage {before.key[:12]} made; remove it and train again")
    if job.replay.file is not None and (
        not job.replay.file.is_file() or digest_file(job.replay.file) != job.replay.digest
    ):
        raise CorruptArtifact(f"{job.replay.file} is not the file the job was made for; make the job again")


def _asked(job: StageJob) -> tuple[Objective, Any]:
    """The objective as its options want it, and the options."""
    objective = objective_named(job.spec.objective)
    options = objective.options.model_validate(dict(job.spec.objective_options))
    return (objective.variant(objective, options) if objective.variant else objective), options


def _collator(job: StageJob, objective: Objective, pack: bool) -> Collator:
    from training.engines.native.loop.step import Collator

    return Collator(objective, tokens_per_pass=job.spec.tokens_per_pass, pack=pack, pad=0)


def _with_reference(
    job: StageJob,
    model: Any,
    train: Sequence[Item],
    validation: Sequence[Item],
    order: Sequence[int],
    collator: Collator,
    offset: int,
) -> tuple[list[Item], list[Item]]:
    """Items with their log-probabilities under the weights that the stage starts from; kept for a resumed run.

    Training items that the stage's passes never reach (epochs below one) are left without: nobody asks for theirs.
    """
    from training.engines.native.loop.step import reference_scores
    from training.engines.native.packing.tokenization import with_reference

    used = sorted(set(order))
    both = [*(train[i] for i in used), *validation]
    file = job.work / "reference.json"
    if file.is_file():
        scores = json.loads(file.read_text())
    else:
        scores = reference_scores(model, both, collator, job.spec.batch_size or 8, offset)
        atomic_write(file, json.dumps(scores))
    scored = with_reference(both, scores)
    known = dict(zip(used, scored, strict=False))
    return [known.get(i, item) for i, item in enumerate(train)], scored[len(used) :]


def _trainer(
    job: StageJob,
    objective: Objective,
    options: Any,
    model: Any,
    sequence: Sequence[Item],
    validation: Sequence[Item],
    collator: Collator,
    offset: int,
    parts: Mapping[str, Any],
) -> tuple[StageTrainer, Watch]:
    from torch.utils.data import SequentialSampler
    from transformers import TrainingArguments

    from training.engines.native.loop.callbacks import Watch, last_checkpoint
    from training.engines.native.loop.trainer import StageTrainer
    from training.hardware import has_gpu

    spec = job.spec
    assert spec.batch_size and spec.learning_rate, "the job's spec is resolved"
    updates = objective.online.updates(options) if objective.online else 1
    size = max(1, spec.batch_size // job.world_size)
    if updates > 1:  # every set of answers is of full size
        size = min(size, len(sequence) // updates)
    steps = -(-len(sequence) // (size * job.world_size))
    if parts["during"] is not None:
        parts["during"].begin(model, steps)
    count = spec.evaluations if validation else 0
    arguments = TrainingArguments(
        output_dir=str(job.work / "checkpoints"),
        per_device_train_batch_size=size,
        num_train_epochs=1,  # the order above holds all epochs
        learning_rate=spec.learning_rate,
        lr_scheduler_type=spec.schedule,
        warmup_steps=round(spec.warmup * steps),
        weight_decay=spec.weight_decay,
        max_grad_norm=spec.max_grad_norm,
        seed=job.seed,
        use_cpu=not has_gpu(),
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",  # Watch asks for checkpoints by time
        save_total_limit=2,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )
    # Trainer takes every GPU it sees for its own: it would wrap the model in DataParallel, and multiply the batch.
    arguments._n_gpu = min(1, arguments.n_gpu)
    checkpoint = last_checkpoint(job.work / "checkpoints")
    watch = Watch(
        job.work,
        evaluate_at=sorted({max(1, round(steps * (i + 1) / count)) for i in range(count)}),
        patience=spec.patience,
        checkpoint_seconds=job.checkpoint_seconds,
        checkpoint_every=updates,
        checkpoints=spec.checkpoints,
        resumed_at=int(checkpoint.name.split("-")[1]) if checkpoint else 0,
    )
    trainer = StageTrainer(
        model=model,
        args=arguments,
        train_dataset=sequence,
        data_collator=collator,
        objective=objective,
        options=options,
        validation=validation,
        batch_size=spec.batch_size,
        offset=offset,
        make_optimizer=tuner_named(spec.tuner).optimizer,
        **parts,
        callbacks=[watch],
    )
    watch.trainer = trainer
    trainer._get_train_sampler = lambda *_: SequentialSampler(sequence)
    from transformers.trainer_callback import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    return trainer, watch


def _resume_point(job: StageJob) -> Path | None:
    from training.engines.native.loop.callbacks import last_checkpoint

    return last_checkpoint(job.work / "checkpoints")


def _take_best(job: StageJob, trainer: StageTrainer) -> dict[str, Any] | None:
    """Put the best weights back where the last ones are worse; the measurement of those that are kept, None where
    there was no validation."""
    from training.engines.native.loop.best_weights import kept, measurements

    best = job.work / "best"
    if not (best / "best.json").is_file():
        return None
    chosen = kept(measurements(trainer.state.log_history))
    if chosen.step != trainer.state.global_step:
        trainer.bring_back(best)
    return {"step": chosen.step, "loss": chosen.loss}


def _last_loss(history: Sequence[dict[str, Any]]) -> float | None:
    losses = [float(entry["loss"]) for entry in history if "loss" in entry]
    return sum(losses[-5:]) / len(losses[-5:]) if losses else None
