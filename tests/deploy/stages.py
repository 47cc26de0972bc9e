"""Finished stages with weights of a few bytes, for tests of what happens to weights after training."""

from __future__ import annotations

from pathlib import Path

from deploy.versions.versions import publish_version
from infra.artifact import digest_dir, finished_record, write_record


def finished_stage(folder: Path, content: str = "weights", *, kind: str = "adapter") -> Path:
    """A stage's output folder as training leaves it."""
    weights = folder / kind
    weights.mkdir(parents=True)
    (weights / "adapter_model.safetensors").write_text(content)
    (weights / "adapter_config.json").write_text("{}")
    (folder / "probe.json").write_text('{"prompts": []}')
    digest = digest_dir(weights)
    write_record(
        folder, finished_record(name="stage", key=f"key of {content}", digest=digest, config={"recipe": "sft-lora"})
    )
    return folder


def published(tmp_path: Path, content: str) -> str:
    """The name of a version made of `content`, published below tmp_path/versions."""
    return publish_version(finished_stage(tmp_path / "stages" / content, content), tmp_path / "versions").name
