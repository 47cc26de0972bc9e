"""Distillation: a teacher's answers, or its whole distributions, into a student.

- On distributions (Agarwal et al. 2024, arXiv:2306.13649, generalised Jensen-Shannon divergence; `divergence` 0 is the
  forward KL of Hinton et al. 2015): a local teacher with the student's tokenizer reads the same answers.
- On answers (Kim and Rush 2016, arXiv:1606.07947): the teacher answers each prompt once and the student imitates; the
  teacher may stand behind an OpenAI-compatible endpoint.
- Prompt distillation (Snell et al. 2022, arXiv:2209.15189): without a teacher named, the model that the stage starts
  from teaches itself: it reads a long system prompt, the student does not.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from infra.settings import Config
from training.objectives.objective import Objective, Online

if TYPE_CHECKING:
    import torch

    from feedback.examples import Example
    from training.chat.template import Template, Tokens
    from training.engines.native.online.rollouts import Rollouts
    from training.engines.native.online.teachers import TeacherEndpoint
    from training.engines.native.packing.batch import LossInputs
    from training.engines.native.packing.items import Item


class DistillOptions(Config):
    """Options of distill."""

    teacher: str | None = None
    """Teacher: a base model's name or folder, as `base_model` takes it. Default: the model the stage starts from."""
    teacher_url: str | None = None
    """Endpoint of a teacher behind an OpenAI-compatible API, up to and including /v1; then `teacher` is the name of the
    model to ask for, and only its answers are learned."""
    teacher_key_env: str = "RATCHET_TEACHER_KEY"
    """Environment variable that holds the endpoint's key; may be unset for a local server."""
    system: str | None = None
    """System prompt that the teacher reads and the student does not. Default, without a teacher: the conversation's
    own system message."""
    learn: Literal["distributions", "answers"] = "distributions"
    """What of the teacher is learned."""
    answers: Literal["teacher", "given", "student"] = "teacher"
    """Whose answers are read: the teacher's, drawn once before training; the data's own; or the student's, drawn anew
    at each step (on-policy; distributions only)."""
    divergence: float = Field(default=0.0, ge=0, le=1)
    """0: forward KL, which covers all the teacher says; 1: reverse KL, which keeps to what it says most; between: the
    generalised Jensen-Shannon divergence."""
    temperature: float = Field(default=1.0, gt=0)
    """Both distributions are softened by it."""
    max_new_tokens: int = Field(default=256, ge=1)
    """Longest answer."""

    @model_validator(mode="after")
    def _goes_together(self) -> DistillOptions:
        if self.teacher_url is not None and (self.learn != "answers" or self.answers != "teacher"):
            raise ValueError("a teacher behind teacher_url gives answers only; say learn: answers, answers: teacher")
        if self.teacher_url is not None and not self.teacher:
            raise ValueError("teacher_url needs teacher, the name of the model to ask for")
        if self.learn == "answers" and self.answers != "teacher":
            raise ValueError("learning answers means the teacher's; for the data's own answers use sft")
        return self


def encode(example: Example, template: Template, options: DistillOptions) -> list[Item]:
    """What the student reads and what the teacher reads, with the data's answer or with none yet.

    Raises:
        Unlearnable: the teacher would read just what the student reads.
    """
    from training.chat.template import Tokens, Unlearnable, messages_for_template
    from training.engines.native.packing.items import Item

    messages = messages_for_template(example.messages)
    if not messages or (options.answers == "given" and not example.completion):
        return []
    own = messages[0]["role"] == "system"
    if options.system is not None:
        student, teacher = messages, [{"role": "system", "content": options.system}, *messages[own:]]
    elif options.teacher is None:
        if not own or len(messages) == 1:
            raise Unlearnable("it has no system prompt to distil, and no teacher or system prompt is given")
        student, teacher = messages[1:], messages
    else:
        student = teacher = messages
    if options.answers == "given":
        assert example.completion
        ended = "completion" not in example.cut
        pair = tuple(template.answer(each, example.completion, ended=ended) for each in (student, teacher))
        return [Item(pair, example.weight)]
    prompts = tuple(template.prompt(each) for each in (student, teacher))
    sequences = tuple(Tokens(ids, (False,) * len(ids)) for ids in prompts)
    return [Item(sequences, example.weight, note=json.dumps({"messages": teacher}))]


def arrange(items: list[Item], options: DistillOptions) -> list[Item]:
    """Each prompt once, where answers are drawn."""
    if options.answers == "given":
        return items
    return list({item.sequences[0].ids: item for item in items}.values())


def endpoint(options: DistillOptions) -> TeacherEndpoint | None:
    """Where the teacher is asked; None where it is a local model."""
    from training.engines.native.online.teachers import TeacherEndpoint

    if options.teacher_url is None:
        return None
    assert options.teacher, "the options have been checked"
    return TeacherEndpoint(
        url=options.teacher_url,
        model=options.teacher,
        key_env=options.teacher_key_env,
        max_new_tokens=options.max_new_tokens,
    )


def prepare(rollouts: Rollouts, items: Sequence[Item], options: DistillOptions) -> list[Item]:
    """The teacher's answer to every prompt."""
    from training.engines.native.online.teachers import answers_of

    answers = answers_of(rollouts, items, endpoint(options), options.max_new_tokens)
    read = 1 if options.learn == "answers" else 2  # the teacher reads along only where its distributions are learned
    return [
        replace(item, sequences=tuple(_with(prompt, answer) for prompt in item.sequences[:read]), note="")
        for item, answer in zip(items, answers, strict=True)
        if answer
    ]


def _with(prompt: Tokens, answer: Sequence[int]) -> Tokens:
    from training.chat.template import Tokens

    return Tokens((*prompt.ids, *answer), (*([False] * len(prompt.ids)), *([True] * len(answer))))


def collect(rollouts: Rollouts, items: Sequence[Item], options: DistillOptions) -> list[Item]:
    """The student's own answer to every prompt."""
    answers = rollouts.sample(items, 1, options.max_new_tokens)
    return [
        replace(item, sequences=tuple(_with(prompt, group[0].ids) for prompt in item.sequences))
        for item, group in zip(items, answers, strict=True)
    ]


def loss(scored: LossInputs, options: DistillOptions) -> tuple[torch.Tensor, dict[str, float]]:
    """Divergence of teacher and student at every answer token, weighted."""
    divergence = generalised_divergence(
        scored.logits / options.temperature, scored.teacher_logits / options.temperature, options.divergence
    )
    return (divergence * scored.weight[scored.item_of_token]).sum(), {}


def generalised_divergence(student: torch.Tensor, teacher: torch.Tensor, between: float) -> torch.Tensor:
    """[n] D(between) of [n, vocabulary] logits: KL(teacher || student) at 0, KL(student || teacher) at 1, else
    b KL(teacher || m) + (1 - b) KL(student || m) with m = b teacher + (1 - b) student."""
    import math

    import torch

    log_s, log_t = torch.log_softmax(student.float(), -1), torch.log_softmax(teacher.float(), -1)
    if between == 0:
        return (log_t.exp() * (log_t - log_s)).sum(-1)
    if between == 1:
        return (log_s.exp() * (log_s - log_t)).sum(-1)
    mixture = torch.logaddexp(log_s + math.log1p(-between), log_t + math.log(between))
    from_teacher = (log_t.exp() * (log_t - mixture)).sum(-1)
    from_student = (log_s.exp() * (log_s - mixture)).sum(-1)
    return between * from_teacher + (1 - between) * from_student


def normalizer(scored: LossInputs) -> torch.Tensor:
    """Weighted number of answer tokens."""
    return scored.weight[scored.item_of_token].sum()


def variant(objective: Objective, options: DistillOptions) -> Objective:
    """On answers it is sft on what the teacher said; on-policy it samples; else the teacher reads beside it."""
    if options.learn == "answers":
        from training.objectives.sft import loss as imitation

        return replace(objective, loss=imitation, reads=frozenset(), teacher=False, sequences=1, no_grad_sequences=())
    if options.answers == "student":
        return replace(objective, prepare=None, online=Online(collect=collect, grades=False))
    return objective if options.answers == "teacher" else replace(objective, prepare=None)


def epochs(examples: int) -> float:
    """As for sft."""
    return 3 if examples <= 100 else 2 if examples <= 5_000 else 1


OBJECTIVE = Objective(
    name="distill",
    summary="say what a teacher says: on its distributions or its answers (Agarwal et al. 2024; Kim and Rush 2016)",
    shapes=("completion", "problem"),
    options=DistillOptions,
    encode=encode,
    arrange=arrange,
    prepare=prepare,
    loss=loss,
    normalizer=normalizer,
    variant=variant,
    epochs=epochs,
    sequences=2,
    no_grad_sequences=(1,),
    reads=frozenset({"logits"}),
    teacher=True,
    location_options=("teacher_url", "teacher_key_env"),
    cost=4.0,
)
