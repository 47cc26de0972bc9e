"""Attach adapters and whole models to one loaded base, by name.

Plain LoRA adapters and learned prefixes share the base; adapters of other kinds get a copy of it, merged in float32
where their kind allows; whole models stand beside it. Names are content hashes: none is ever attached to other bytes.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch

from infra.errors import Conflict, CorruptArtifact, NotFound, UserError
from training.generation.attention_check import why_not_attention
from training.generation.chat_encoder import ChatEncoder
from training.generation.lanes import Lane
from training.generation.lora import Routes, place_rows, read_rows, remove_rows, why_not_rows
from training.generation.prefixes import read_virtual
from training.generation.rows import ATTENTION
from training.generation.scoring import sequence_logprobs
from training.sequence_mixers import check_folder, refusal, why_not_generated
from training.tuners.adapter_kinds import virtual_tokens_of


class AttachedModels:
    """The base's lane, and those of what is attached.

    Args:
        base_path: folder of the base model.
        dtype: numerics of serving.
        device: what is computed on.

    Raises:
        NotFound: no such folder.
        CorruptArtifact: its weights cannot be read.
        UserError: the generator would be wrong for a model of this kind (training/sequence_mixers.py).
    """

    def __init__(self, base_path: Path, dtype: torch.dtype, device: torch.device) -> None:
        self.base_path, self.dtype, self.device = base_path, dtype, device
        self.loaded: list[Path] = []
        """Folders whose whole weights were read from disk, in order."""
        self.base = Lane(model=self._load(base_path, dtype), routes=Routes(segments=[]))
        self.lanes: dict[str | None, Lane] = {None: self.base}
        self.paths: dict[str, Path] = {}

    def attach(self, name: str, path: Path) -> None:
        """Make an adapter folder (peft's files) available as `name`. The same name and path again changes nothing.

        Raises:
            NotFound: there is no adapter in the folder.
            Conflict: the name stands for another path.
            CorruptArtifact: the files cannot be read, or do not fit this base.
            UserError: a kind of adapter that cannot be served here; the message says why.
        """
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
        lane = self.base
        kind = virtual_tokens_of(config.get("peft_type"))
        if kind is not None:
            lane.virtual[name] = read_virtual(path, kind, lane.model, self.dtype)
        elif why_not_rows(config) is None:
            matrices = read_rows(path, config, lane.model, self.dtype)
            place_rows(lane.model, name, matrices, lane.routes)
        else:
            lane = Lane(model=self._own_copy(path), routes=Routes(segments=[]))
        lane.adapters.add(name)
        self.lanes[name], self.paths[name] = lane, path

    def attach_model(self, name: str, path: Path) -> None:
        """Make a folder with a whole model of the base's tokenizer available as `name`. Errors as for `attach`."""
        if self._known(name, path):
            return
        model = self._load(path, self.dtype)
        size, ours = model.config.vocab_size, self.base.model.config.vocab_size
        if size != ours:
            raise CorruptArtifact(f"the model in {path} has {size} tokens, the base {ours}; another base made it")
        self.lanes[name] = Lane(model=model, routes=Routes(segments=[]), adapters={name})
        self.paths[name] = path

    def detach(self, name: str) -> None:
        """Take an adapter or model away and free its memory. No request may be using it.

        Raises:
            NotFound: it is not attached.
        """
        if name not in self.paths:
            raise NotFound(f"{name!r} is not attached; attached are: {', '.join(self.paths) or 'none'}")
        lane = self.lanes.pop(name)
        del self.paths[name]
        lane.adapters.discard(name)
        if lane is self.base:
            lane.virtual.pop(name, None)
            remove_rows(lane.model, name)

    def _known(self, name: str, path: Path) -> bool:
        if name not in self.paths:
            return False
        if self.paths[name] != path:
            raise Conflict(f"{name!r} is attached from {self.paths[name]}, not {path}; names are never reused")
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
        chat = ChatEncoder(self.base_path)
        texts = [chat.encode(f"{question}\n{answer}") for question, answer in CONVERSATIONS]

        def score(model: Any) -> list[list[float]]:
            lane = Lane(model=model.eval(), routes=Routes(segments=[]))
            return sequence_logprobs(lane, None, texts, self.device)

        base_scores = sequence_logprobs(self.base, None, texts, self.device)
        model, _ = merged_alike(wrapped, self.dtype, score=score, base_scores=base_scores)
        return model.requires_grad_(False).to(self.device)
