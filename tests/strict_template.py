"""A chat template that refuses what Gemma's and Mistral's do."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.tiny_model import CHATML

NO_SYSTEM = "System role not supported"
ALTERNATE = "Conversation roles must alternate user/assistant/user/assistant/..."
STRICT = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('" + NO_SYSTEM + "') }}{% endif %}"
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('" + ALTERNATE + "') }}{% endif %}{% endfor %}" + CHATML
)


def strict_base(tiny: Path, folder: Path) -> Path:
    """The tiny model with that template."""
    shutil.copytree(tiny, folder)
    (folder / "chat_template.jinja").write_text(STRICT)
    return folder
