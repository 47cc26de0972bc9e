"""A real headless Chromium for slow tests, and where their screenshots are kept (never in the repository)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SHOTS = Path(os.environ.get("RATCHET_SCREENSHOTS", ".screenshots")).absolute()


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser until the block ends; the test is skipped where none is installed."""
    from playwright.sync_api import sync_playwright

    path = os.environ.get("RATCHET_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium on this machine; set RATCHET_CHROMIUM to one")
    with sync_playwright() as started:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        browser = started.chromium.launch(executable_path=path, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


def shot(page: Page, name: str, *, full: bool = True) -> Path:
    """Keep a screenshot as a build artifact."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png", full_page=full)
    return SHOTS / f"{name}.png"
