"""List the pages of the site in mkdocs.yml: every how-to and reference page that exists, with no second list."""

from __future__ import annotations

from pathlib import Path

import yaml


def with_all_pages(text: str, docs: Path) -> str:
    """mkdocs.yml with the pages of docs/howto and docs/reference, in the order of their names; comments stay.

    Raises:
        ValueError: there is no list of pages to write them into.
    """
    head, found, _ = text.partition("\nnav:\n")
    if not found:
        raise ValueError("mkdocs.yml: expected a top-level `nav`")
    nav = yaml.safe_load(text)["nav"]
    listed = {"How to": "howto", "Reference": "reference"}
    for section in nav:
        for title, folder in listed.items():
            if isinstance(section, dict) and title in section:
                section[title] = [f"{folder}/{page.name}" for page in sorted((docs / folder).glob("*.md"))]
    single = {page.name for page in docs.glob("*.md")}
    named = {page for page in _pages(nav) if "/" not in page}
    nav = [entry for entry in nav if not isinstance(entry, str) or entry in single]
    nav += sorted(single - named)
    return head + "\n" + yaml.safe_dump({"nav": nav}, sort_keys=False)


def _pages(nav: object) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    if isinstance(nav, dict):
        return [page for inner in nav.values() for page in _pages(inner)]
    return [page for inner in nav for page in _pages(inner)] if isinstance(nav, list) else []
