"""The only generator: evaluation, the objectives that sample, and the embedded engine all use it.

The base is loaded once; plain LoRA adapters share it, each request going through its own (training/generation/lora.py),
and so do learned prefixes and prompts, which stand in a request's cache (training/generation/prefixes.py). Adapters of
other kinds get a copy of the base of their own, merged in float32 where their kind allows; whole models stand beside
it. Names are content hashes: a name is never attached to other bytes.

    generator = Generator(base_path)
    generator.attach("v0123...", version_dir / "adapter")
    ids = generator.encode_chat([{"role": "user", "content": "Hello"}])
    [answer] = generator.generate([Request(prompt_ids=ids, adapter="v0123...")])
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from infra.errors import Conflict, CorruptArtifact, NotFound, UserError
from training.chat.rendering import TemplateRefuses, render
from training.generation.attention_check import why_not_attention
from training.generation.batch import Batch, Lane, chosen_logprobs, forward, lanes_by_name
from training.generation.choices import continuation_logprobs
from training.generation.lora import Routes, place_rows, read_rows, remove_rows, why_not_rows
from training.generation.prefixes import VIRTUAL_KINDS, read_virtual
from training.generation.requests import Completion, Request, Step
from training.generation.rows import ATTENTION, KeyValueRows, Plan, Prefill, register
from training.hardware import best_dtype, device_name
from training.sequence_mixers import check_folder, refusal, why_not_generated

__all__ = ["Batch", "Completion", "DType", "Generator", "Request", "Step", "pick_dtype"]

DType = Literal["auto", "float32", "bfloat16"]


def pick_dtype(dtype: DType = "auto") -> torch.dtype:
    """The dtype to serve in; `auto` is what this machine was measured to be fastest with (training/hardware.py)."""
    chosen = best_dtype() if dtype == "auto" else dtype
    return torch.float32 if chosen == "float32" else torch.bfloat16


class Generator:
    """A base model with adapters and whole models beside it, on the GPU where there is one. Not thread-safe.

    Args:
        base_path: folder of safetensors, config and tokenizer.
        dtype: numerics of serving; `auto` picks by what it computes on.
        threads: torch's threads for this process; None leaves them alone.

    Raises:
        NotFound: no such folder.
        CorruptArtifact: its weights cannot be read.
        UserError: the generator would be wrong for a model of this kind (training/sequence_mixers.py).
    """

    def __init__(self, base_path: Path | str, dtype: DType = "auto", threads: int | None = None) -> None:
        from transformers import AutoTokenizer

        if threads is not None:
            torch.set_num_threads(threads)
        register()
        self.base_path = Path(base_path)
        self.dtype = pick_dtype(dtype)
        self.device = torch.empty(0, device=device_name()).device
        self.loaded: list[Path] = []
        """Folders whose whole weights were read from disk, in order."""
        model = self._load(self.base_path, self.dtype)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(self.base_path, local_files_only=True)
        self.context_length: int = int(getattr(model.config, "max_position_embeddings", 0) or 2048)
        self.end_tokens: frozenset[int] = _end_tokens(model, self.tokenizer)
        self._lanes: dict[str | None, Lane] = {None: Lane(model=model, routes=Routes(segments=[]))}
        self._paths: dict[str, Path] = {}

    @property
    def vocabulary(self) -> int:
        """Number of tokens the model knows."""
        return int(self._lanes[None].model.config.vocab_size)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of attached adapters and models."""
        return tuple(self._paths)

    def attach(self, name: str, path: Path | str) -> None:
        """Make an adapter folder (peft's files) available as `name`. The same name and path again changes nothing.

        Raises:
            NotFound: there is no adapter in the folder.
            Conflict: the name stands for another path.
            CorruptArtifact: the files cannot be read, or do not fit this base.
            UserError: a kind of adapter that cannot be served here; the message says why.
        """
        path = Path(path)
        if self._known(name, path):
            return
        try:
            config = json.loads((path / "adapter_config.json").read_text())
        except FileNotFoundError:
            raise NotFound(
                f"{path} has no adapter_config.json; expected the folder of an adapter saved by peft"
            ) from None
        except ValueError as error:
            raise CorruptArtifact(
                f"{path / 'adapter_config.json'} is not JSON ({error}); copy the adapter again"
            ) from error
        base = self._lanes[None]
        if config.get("peft_type") in VIRTUAL_KINDS:
            lane = base
            lane.virtual[name] = read_virtual(path, config, base.model, self.dtype)
        elif why_not_rows(config) is None:
            matrices = read_rows(path, config, base.model, self.dtype)
            place_rows(base.model, name, matrices, base.routes)
            lane = base
        else:
            lane = Lane(model=self._own_copy(path), routes=Routes(segments=[]))
        lane.adapters.add(name)
        self._lanes[name], self._paths[name] = lane, path

    def attach_model(self, name: str, path: Path | str) -> None:
        """Make a folder with a whole model of the base's tokenizer available as `name`. Errors as for `attach`."""
        path = Path(path)
        if self._known(name, path):
            return
        model = self._load(path, self.dtype)
        self._same_vocabulary(model, path)
        self._lanes[name] = Lane(model=model, routes=Routes(segments=[]), adapters={name})
        self._paths[name] = path

    def detach(self, name: str) -> None:
        """Take an adapter or model away and free its memory. No request may be using it.

        Raises:
            NotFound: it is not attached.
        """
        if name not in self._paths:
            raise NotFound(f"{name!r} is not attached; attached are: {', '.join(self._paths) or 'none'}")
        lane = self._lanes.pop(name)
        del self._paths[name]
        lane.adapters.discard(name)
        if lane is self._lanes[None]:
            lane.virtual.pop(name, None)
            remove_rows(lane.model, name)

    def encode_chat(
        self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True
    ) -> tuple[int, ...]:
        """Tokens of a conversation by the model's own template.

        Raises:
            UserError: the model has no template, or the template refuses the messages.
        """
        try:
            return self.encode(render(self.tokenizer, messages, prompt=add_generation_prompt))
        except TemplateRefuses as error:
            raise UserError(f"the model's chat template refuses these messages: {error.words}") from error

    def encode(self, text: str) -> tuple[int, ...]:
        """Tokens of a text as it stands; special tokens in it count as such, none is added."""
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def batch(self, *, max_size: int = 32, prefill_tokens: int = 1024) -> Batch:
        """A running batch that requests can join at any time (the engine steps one)."""
        return Batch(
            lane_of=lanes_by_name(self._lanes),
            tokenizer=self.tokenizer,
            end_tokens=self.end_tokens,
            context_length=self.context_length,
            device=self.device,
            max_size=max_size,
            prefill_tokens=prefill_tokens,
        )

    def generate(
        self,
        requests: Sequence[Request],
        *,
        max_size: int = 32,
        on_done: Callable[[Completion], None] = lambda completion: None,
    ) -> list[Completion]:
        """Answer all requests; the completions are in the order of the requests.

        Requests of one adapter run together, longest prompts first; a beginning shared by all of an adapter's requests
        is computed once. `on_done` hears of each as it finishes.
        """
        batch = self.batch(max_size=max_size)
        by_adapter: dict[str | None, list[int]] = {}
        for index, request in enumerate(requests):
            by_adapter.setdefault(request.adapter, []).append(index)
        results: list[Completion | None] = [None] * len(requests)
        for adapter, indices in by_adapter.items():
            prompts = [requests[index].prompt_ids for index in indices]
            shared = _shared_prefix(prompts)
            if shared >= 8:
                lanes_by_name(self._lanes)(adapter)
                batch.warm(adapter, prompts[0][:shared])
            for index in sorted(indices, key=lambda each: (-len(requests[each].prompt_ids), each)):
                request = requests[index]
                prefix = shared if shared >= 8 else request.prefix_len
                batch.add(Request(**{**request.__dict__, "request_id": str(index), "prefix_len": prefix}))
            # One adapter after another: a cache of rows is then never shared, and memory is bounded.
            while len(batch):
                for step in batch.step():
                    if step.completion is not None:
                        index = int(step.request_id)
                        named = requests[index].request_id or step.request_id
                        completion = Completion(**{**step.completion.__dict__, "request_id": named})
                        results[index] = completion
                        on_done(completion)
        return [result for result in results if result is not None]

    @torch.inference_mode()
    def logprobs(
        self, name: str | None, token_ids: Sequence[Sequence[int]], *, chunk_tokens: int = 1024
    ) -> list[list[float]]:
        """Log-probability (natural) of each token given those before it, in serving numerics.

        Args:
            name: an attached adapter or model; None for the base.
            token_ids: sequences of tokens.

        Returns:
            For each sequence of n tokens, n - 1 values: that of token 1 given token 0, and so on.
        """
        return self._logprobs(lanes_by_name(self._lanes)(name), name, token_ids, chunk_tokens)

    def _logprobs(
        self, lane: Lane, name: str | None, token_ids: Sequence[Sequence[int]], chunk_tokens: int
    ) -> list[list[float]]:
        before = lane.before(name)
        result: list[list[float]] = []
        for group in _chunks(token_ids, chunk_tokens):
            tokens = [token for sequence in group for token in sequence]
            positions = [before + position for sequence in group for position in range(len(sequence))]
            cache: KeyValueRows | None = None
            if before:
                cache = KeyValueRows(rows=len(group), positions=before + max(map(len, group)))
                for row in range(len(group)):
                    cache.copy_from(lane.virtual[str(name)].rows, row=row, length=before)
            prefills: list[Prefill] = []
            keep: list[int] = []
            targets: list[int] = []
            end = 0
            for row, sequence in enumerate(group):
                begin, end = end, end + len(sequence)
                prefills.append(Prefill(begin, end, row, before))
                keep += range(begin, end - 1)
                targets += sequence[1:]
            values: list[float] = []
            if keep:
                lane.routes.segments = [(0, len(tokens), name)] if name is not None else []
                logits = forward(lane.model, tokens, positions, keep, Plan(cache, prefills), self.device)
                values = chosen_logprobs(logits, targets)
            for sequence in group:
                count = max(0, len(sequence) - 1)
                result.append(values[:count])
                values = values[count:]
        return result

    def continuations(
        self, name: str | None, asked: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]
    ) -> list[list[float]]:
        """Log-probability of each token of each (beginning, continuation); equal beginnings are computed once."""
        return [[value for value, _ in found] for found in self.likely_continuations(name, asked)]

    def likely_continuations(
        self, name: str | None, asked: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]
    ) -> list[list[tuple[float, bool]]]:
        """The same, each with whether the token is the one that greedy decoding would have chosen."""
        return continuation_logprobs(lanes_by_name(self._lanes)(name), name, asked, self.device)

    def _known(self, name: str, path: Path) -> bool:
        if name not in self._paths:
            return False
        if self._paths[name] != path:
            raise Conflict(f"{name!r} is attached from {self._paths[name]}, not {path}; names are never reused")
        return True

    def _load(self, path: Path, dtype: torch.dtype) -> Any:
        from safetensors import SafetensorError
        from transformers import AutoModelForCausalLM

        if not (path / "config.json").exists():
            raise NotFound(f"{path} has no config.json; expected a folder with a whole model")
        check_folder(path)
        self.loaded.append(path)
        try:
            model, info = AutoModelForCausalLM.from_pretrained(
                path,
                dtype=dtype,
                attn_implementation=ATTENTION,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        except (SafetensorError, OSError, RuntimeError, ValueError) as error:
            raise CorruptArtifact(f"the model in {path} cannot be loaded: {error}") from error
        if info["missing_keys"] or info["mismatched_keys"]:
            raise CorruptArtifact(
                f"the model in {path} lacks {len(info['missing_keys'])} tensors and has {len(info['mismatched_keys'])} "
                "of another shape than its config says; copy or train it again"
            )
        model = model.eval().requires_grad_(False).to(self.device)
        config = model.config.get_text_config()
        reason = why_not_generated(config.to_dict()) or why_not_attention(model, self.device)
        if reason is not None:
            raise UserError(refusal(f"{path} (model_type {config.model_type})", reason))
        return model

    def _same_vocabulary(self, model: Any, path: Path) -> None:
        size, ours = model.config.vocab_size, self._lanes[None].model.config.vocab_size
        if size != ours:
            raise CorruptArtifact(f"the model in {path} has {size} tokens, the base {ours}; another base made it")

    def _own_copy(self, path: Path) -> Any:
        """The base with an adapter that cannot share: merged and proved where its kind allows, else on top of it."""
        from peft import PeftConfig, PeftModel
        from safetensors import SafetensorError

        import training.weights.bottleneck_peft  # noqa: F401  # peft learns of that kind
        from training.weights.merging import merged_alike, why_not_merged
        from training.weights.probe_prompts import CONVERSATIONS

        try:
            config = PeftConfig.from_pretrained(str(path))
        except (KeyError, ValueError, TypeError) as error:
            raise UserError(f"peft does not know the kind of adapter in {path}: {error}") from error
        if config.is_prompt_learning:
            raise UserError(
                f"{path} is an adapter of kind {config.peft_type.value}; of those that put virtual tokens first the "
                "embedded engine serves prefix and prompt tuning only; train another tuner, such as lora"
            )
        base = self._load(self.base_path, torch.float32)
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                # Under peft's own name: AdaLoRA's loader mistakes a short name for a part of a layer's.
                wrapped = PeftModel.from_pretrained(base, str(path), is_trainable=False)
        except (SafetensorError, OSError, RuntimeError, ValueError, KeyError) as error:
            raise CorruptArtifact(f"the adapter in {path} cannot be loaded: {error}") from error
        missing = [str(each.message) for each in caught if "missing" in str(each.message).lower()]
        if missing:
            raise CorruptArtifact(f"the adapter in {path} does not fit the base: {missing[0][:300]}")
        if why_not_merged(wrapped):
            return wrapped.get_base_model().eval().requires_grad_(False).to(self.device, self.dtype)
        texts = [self.encode(f"{question}\n{answer}") for question, answer in CONVERSATIONS]

        @torch.inference_mode()
        def score(model: Any) -> list[list[float]]:
            lane = Lane(model=model.eval(), routes=Routes(segments=[]))
            return self._logprobs(lane, None, texts, chunk_tokens=1024)

        model, _ = merged_alike(wrapped, self.dtype, score=score, base_scores=self.logprobs(None, texts))
        return model.requires_grad_(False).to(self.device)


def _end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    ends = model.generation_config.eos_token_id
    found = set(ends if isinstance(ends, list) else [ends])
    return frozenset(int(token) for token in found | {tokenizer.eos_token_id} if token is not None)


def _shared_prefix(prompts: Sequence[tuple[int, ...]]) -> int:
    """Tokens that all prompts begin with, at least one of each left over; 0 for a single prompt."""
    if len(prompts) < 2:
        return 0
    first, last = min(prompts), max(prompts)
    length = min(len(prompt) for prompt in prompts) - 1
    for index in range(length):
        if first[index] != last[index]:
            return index
    return length


def _chunks(sequences: Sequence[Sequence[int]], tokens: int) -> Iterator[list[list[int]]]:
    group: list[list[int]] = []
    size = 0
    for sequence in sequences:
        if group and size + len(sequence) > tokens:
            yield group
            group, size = [], 0
        group.append(list(sequence))
        size += len(sequence)
    if group:
        yield group
