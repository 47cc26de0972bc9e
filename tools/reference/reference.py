"""Write docs/reference from the code, or check that it is up to date.

python -m tools.reference.reference            # write
python -m tools.reference.reference --check    # exit 1 when a file differs from what the code says
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tools.reference.markdown import HEAD, cell

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "reference"


def cli_reference() -> str:
    """Write every command with its help, as Markdown."""
    import typer.main

    from flows.cli.app import app

    lines = [HEAD + "# Commands\n"]

    def walk(command: Any, path: tuple[str, ...]) -> None:
        context = typer.Context(command, info_name=" ".join(path), terminal_width=100, max_content_width=100)
        lines.append(f"## {' '.join(path)}\n\n```text\n{command.get_help(context)}\n```\n")
        for name, inner in sorted(getattr(command, "commands", {}).items()):
            walk(inner, (*path, name))

    walk(typer.main.get_command(app), ("ratchet",))
    return "\n".join(lines)


def config_reference() -> str:
    """Write every key of the config with its type, default and help, as Markdown tables."""
    from flows.config.pipeline import PipelineConfig

    schema = PipelineConfig.model_json_schema()
    models = schema["$defs"]
    lines = [
        HEAD + "# Config\n",
        "One YAML file for one pipeline; `ratchet config check` finds every mistake in it.\n",
    ]

    def table(title: str, model: dict[str, Any]) -> None:
        lines.append(f"## {title}\n\n{cell(model.get('description', ''))}\n")
        lines.append("| key | type | default | what it is |\n|---|---|---|---|")
        required = model.get("required", [])
        for key, field in model.get("properties", {}).items():
            default = "required" if key in required else f"`{_short(field.get('default'))}`"
            help_text = field.get("description") or _target(models, field).get("description", "")
            lines.append(f"| `{key}` | {_type(field)} | {cell(default)} | {cell(help_text)} |")
        lines.append("")

    table("The file", schema)
    for name, model in models.items():
        if "properties" in model:
            table(name, model)
    return "\n".join(lines)


def _target(models: dict[str, Any], field: dict[str, Any]) -> dict[str, Any]:
    name = field.get("$ref", "").rpartition("/")[2]
    found: dict[str, Any] = models.get(name, {})
    return found


def _type(field: dict[str, Any]) -> str:
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in field:
        return " or ".join(_type(one) for one in field["anyOf"])
    if "enum" in field:
        return " or ".join(f"`{one}`" for one in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    if field.get("type") == "array":
        return "list of " + _type(field["items"]) if isinstance(field.get("items"), dict) else "list"
    return str(field.get("type", "value"))


def _short(value: Any) -> str:
    import json

    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def main(argv: list[str]) -> int:
    """Write the files, or with --check say which are out of date."""
    from flows.serving.prefect_file import prefect_yaml
    from tools.reference.extensions import with_extension_table
    from tools.reference.file_tree import files_reference
    from tools.reference.reference_pages import api_reference, events_reference, metrics_reference
    from tools.reference.site_pages import with_all_pages

    wanted = {
        FOLDER / "cli.md": cli_reference(),
        FOLDER / "config.md": config_reference(),
        FOLDER / "api.md": api_reference(),
        FOLDER / "events.md": events_reference((ROOT / "docs" / "runbook.md").read_text()),
        FOLDER / "metrics.md": metrics_reference(),
        FOLDER / "files.md": files_reference(ROOT),
        ROOT / "CONTRIBUTING.md": with_extension_table((ROOT / "CONTRIBUTING.md").read_text()),
        ROOT / "prefect.yaml": prefect_yaml(ROOT),
        ROOT / "mkdocs.yml": with_all_pages((ROOT / "mkdocs.yml").read_text(), ROOT / "docs"),
    }
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    if "--check" in argv:
        for path in stale:
            sys.stderr.write(f"{path} is out of date; run `python -m tools.reference.reference`\n")
        return 1 if stale else 0
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted[path])
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
