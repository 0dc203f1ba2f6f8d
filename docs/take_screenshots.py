"""Take the screenshots of the HTML report and of a terminal that the documentation shows.

    pip install 'gradcheck_cli[report]' playwright
    python docs/take_screenshots.py

A Chromium is taken from the system (the first of `chromium`, `chromium-browser`, `google-chrome`).
"""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.text import Text

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


def take_terminal(name: str, *command: str, columns: int = 110) -> Path:
    """What a command prints in a terminal, in its colours, as an SVG."""
    output: list[bytes] = []

    def read(terminal: int) -> bytes:
        output.append(os.read(terminal, 1 << 16))
        return output[-1]

    os.environ |= {"COLUMNS": str(columns), "TERM": "xterm-256color"}
    pty.spawn([sys.executable, "-m", "gradcheck_cli", *command, "-q"], read)
    console = Console(record=True, width=columns, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(Text.from_ansi(b"".join(output).decode().replace("\r\n", "\n")))
    image = IMAGES / f"{name}.svg"
    image.write_text(console.export_svg(title=f"gradcheck {' '.join(command)}"))
    return image


def main() -> None:
    """All of them."""
    os.chdir(ROOT)
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    IMAGES.mkdir(exist_ok=True)
    take_terminal("terminal", "profile", "sample_models/deep_sigmoid_mlp.py:build")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        for shot in SHOTS:
            image = take(browser, shot, make_report(shot, Path(folder)))
            print(f"{image.relative_to(ROOT)}: {image.stat().st_size // 1000} kB")
        browser.close()


if __name__ == "__main__":
    main()
