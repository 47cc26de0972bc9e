"""Write the table of what can be added by one file and one line, from the registries themselves."""

from __future__ import annotations

import importlib
import inspect

from infra.registry import Registry
from tools.reference.file_tree import PACKAGES
from tools.reference.markdown import cell

MODULES = (
    "training.objectives",
    "training.tuners",
    "training.engines",
    "training.recipes.built_in",
    "training.graders",
    "evaluation.metrics",
    "evaluation.judges",
    "feedback.sources",
    "feedback.formats",
    "deploy.engines",
    "flows.cli.plug_ins",
)
"""Module of each registry, which is also the one that a plug-in of that kind imports."""
BEGIN, END = "<!-- extensions -->", "<!-- /extensions -->"


def registries() -> dict[str, Registry[object]]:
    """Every registry there is, by its module."""
    return {
        name: next(value for value in vars(importlib.import_module(name)).values() if isinstance(value, Registry))
        for name in MODULES
    }


def extension_table() -> str:
    """One row for each kind: how many there are, where its line stands, what its file defines, the entry points."""
    lines = [
        "| kind | there are | registry, and what a plug-in imports | its file defines | entry points |",
        "|---|---|---|---|---|",
    ]
    for name, registry in registries().items():
        cells = (
            registry.noun,
            str(len(registry.built_in)),
            "`" + name.replace(".", "/") + "`",
            cell(_defines(registry)),
            f"`{registry.group}`",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def with_extension_table(text: str) -> str:
    """The page with its table made anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{extension_table()}\n{END}{after}"


def _defines(registry: Registry[object]) -> str:
    if registry.attribute is None:
        return " and ".join(f"`{name}`" for name in registry.offers)
    ours = registry.of is not None and registry.of.__module__.partition(".")[0] in PACKAGES
    about = inspect.getdoc(registry.of) if ours else None
    first = (about or "").partition("\n")[0].partition(". ")[0].rstrip(".")
    return f"`{registry.attribute}`" + (f": {first[0].lower()}{first[1:]}" if first else "")
