"""Take the screenshots of the HTML report that the documentation shows.

    pip install 'gradcheck_cli[report]' playwright
    python docs/take_screenshots.py

A Chromium is taken from the system (the first of `chromium`, `chromium-browser`, `google-chrome`).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run"]


@dataclass(frozen=True)
class Shot:
    """A command of gradcheck, and what of its report is shown: from one element down, so many pixels high."""

    name: str
    command: tuple[str, ...]
    begins: str
    height: int
    scheme: str = "light"


SHOTS = (
    Shot("report-profile", ("profile", "sample_models/deep_sigmoid_mlp.py:build"), "body", 1660),
    Shot("report-heat-map", ("profile", "sample_models/char_gpt.py:build"), "#m0-heat", 840),
    Shot("report-clip-dark", ("recommend-clip", "sample_models/clip_spiky.py:build"), "#m0-series", 1085, "dark"),
    Shot("report-nan-trace", ("nan-trace", "sample_models/nan_sqrt.py:build"), "body", 1080),
)


def make_report(shot: Shot, folder: Path) -> Path:
    """Run the command; it exits with 1 for findings."""
    path = folder / f"{shot.name}.html"
    command = [sys.executable, "-m", "gradcheck_cli", *shot.command, "-q", "-o", str(path)]
    subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=False)
    return path


def take(browser: Any, shot: Shot, report: Path) -> Path:
    """One image, 1280 pixels wide."""
    page = browser.new_page(viewport={"width": 1280, "height": shot.height}, color_scheme=shot.scheme)
    page.goto(report.as_uri())
    if shot.begins != "body":
        page.locator(shot.begins).evaluate("one => window.scrollTo(0, one.offsetTop - 62)")
    image = IMAGES / f"{shot.name}.png"
    page.screenshot(path=image)
    page.close()
    return image


def main() -> None:
    """All of them."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        for shot in SHOTS:
            image = take(browser, shot, make_report(shot, Path(folder)))
            print(f"{image.relative_to(ROOT)}: {image.stat().st_size // 1000} kB")
        browser.close()


if __name__ == "__main__":
    main()
