"""The HTML report in a real browser: what the script does, and that nothing else happens."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gradcheck_cli.records import Report
from gradcheck_cli.report.formats import render
from tests.report.advices import ADVICES
from tests.report.reports import REPORTS
from tests.report.test_html import EVIL, evil_report
from tests.report.traces import TRACES

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
pytest.importorskip("jinja2")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("needs Chromium", allow_module_level=True)
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
ROWS = "tr.layer:visible"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield launched
        launched.close()


class Tab:
    """A page of one report, with everything that it complained of or asked for."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.path, self.complaints, self.asked = path, [], []
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.context.route("**/*", self.answer)
        self.page.goto(path.as_uri())

    def answer(self, route: Any) -> None:
        if route.request.url.partition("#")[0] == self.path.as_uri():
            return route.continue_()
        self.asked.append(route.request.url)
        return route.abort()

    def color(self, selector: str) -> str:
        return str(self.page.locator(selector).first.evaluate("one => getComputedStyle(one).backgroundColor"))


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """Opens a report; in the end nothing may have been complained of, and nothing but the file asked for."""
    tabs: list[Tab] = []

    def opened(report: Report, **options: Any) -> Tab:
        path = tmp_path / f"report-{len(tabs)}.html"
        path.write_text(str(render(report, "html")), encoding="utf-8")
        tabs.append(Tab(browser, path, **options))
        return tabs[-1]

    yield opened
    for tab in tabs:
        tab.context.close()
    assert [tab.complaints + tab.asked for tab in tabs] == [[] for _ in tabs]


def names(page: Any) -> list[str]:
    """Of the layers that are seen, in their order."""
    return [text.strip() for text in page.locator(f"{ROWS} th.name").all_inner_texts()]


@pytest.mark.parametrize("report", [REPORTS["several"], ADVICES["clip-groups"], TRACES["trace-two-origins"]])
def test_renders_without_complaint_and_asks_for_nothing(show: Any, report: Report) -> None:
    for width in (1280, 400):
        page = show(report, viewport={"width": width, "height": 900}).page
        assert page.locator(".verdict").first.is_visible()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.locator("#theme").is_visible()  # the script has run


def test_findings_come_before_everything_but_the_verdict(show: Any) -> None:
    page = show(REPORTS["sick"]).page
    tops = [page.locator(one).first.bounding_box()["y"] for one in (".verdict", ".finding", ".facts", ".chart")]
    assert tops == sorted(tops)


def test_a_click_filters_layers_by_status_and_typing_by_name(show: Any) -> None:
    page = show(REPORTS["sick"]).page
    every = names(page)
    page.locator('.tools [data-status="ok"]').click()
    assert names(page) == [one.name for one in REPORTS["sick"].layers if one.status != "ok"]
    assert page.locator("[data-count]").inner_text() == f"{len(names(page))} of {len(every)} layers"
    page.locator('.tools [data-status="ok"]').click()
    page.locator("[data-filter]").fill("STAGES.3")
    assert names(page) == [name for name in every if name.startswith("stages.3")]
    page.locator("[data-filter]").fill("")
    assert names(page) == every


def test_a_click_filters_findings(show: Any) -> None:
    page = show(REPORTS["sick"]).page
    page.locator('[data-findings] [data-severity="warning"]').click()
    assert page.locator(".finding.warning:visible").count() == 0
    assert page.locator(".finding.error:visible").count() == 1


def test_a_key_sorts_and_says_so(show: Any) -> None:
    page = show(REPORTS["sick"]).page
    by_size = sorted(REPORTS["sick"].layers, key=lambda layer: layer.grad_rms)
    known = [layer.name for layer in by_size if layer.grad_rms == layer.grad_rms]
    heading = page.locator("th", has_text="gradient RMS").first
    heading.locator("button").focus()
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "ascending"
    assert names(page)[: len(known)] == known
    page.keyboard.press("Space")
    assert heading.get_attribute("aria-sort") == "descending"
    assert names(page)[: len(known)] == known[::-1]
    assert page.locator("th[aria-sort]").count() == 1
    page.locator("th", has_text="#").locator("button").press("Enter")
    assert names(page) == [layer.name for layer in REPORTS["sick"].layers]


def test_blocks_fold_and_unfold(show: Any) -> None:
    page = show(REPORTS["folded"]).page
    button = page.get_by_role("button", name="transformer.h.3", exact=True)
    assert button.get_attribute("aria-expanded") == "false"
    assert "transformer.h.3.ln_1" not in names(page)
    button.press("Enter")
    assert button.get_attribute("aria-expanded") == "true"
    assert "transformer.h.3.ln_1" in names(page)
    page.locator("[data-fold-all]").click()
    assert not any(name.startswith("transformer.h.") for name in names(page))
    page.locator("[data-filter]").fill("h.3.ln_1")  # what is searched for is found in a folded block, too
    assert names(page) == ["transformer.h.3.ln_1"]


def test_hovering_and_arrow_keys_tell_numbers(show: Any) -> None:
    page = show(REPORTS["clean"]).page
    series = page.locator('[data-chart="m0-series"]')
    plot = series.locator(".plot").first
    plot.hover(position={"x": plot.bounding_box()["width"] * 3.4 / 6, "y": 20})
    told = page.locator("#tip").inner_text().split("\n")
    assert told[:2] == ["step 3", "loss: 1.9"]
    assert told[2] == f"gradient norm: {REPORTS['clean'].series.grad_norm[3]:.3g}"
    series.focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert series.get_attribute("aria-valuetext").startswith("step 1, loss: 2.2, gradient norm: ")
    page.keyboard.press("Escape")
    assert page.locator("#tip").is_hidden()


def test_the_heat_map_tells_the_number_of_a_cell(show: Any) -> None:
    page = show(REPORTS["non_finite"]).page
    heat = page.locator('[data-chart="m0-heat"]')
    plot = heat.locator(".plot")
    box = plot.bounding_box()
    plot.hover(position={"x": box["width"] / 8, "y": box["height"] / 4})
    # sqrt(0.1^2 + 0.1^2) over sqrt(8 x 4 + 8) elements
    assert page.locator("#tip").inner_text().split("\n") == ["fc1", "step 0", "gradient RMS 2.2e-02"]
    plot.hover(position={"x": box["width"] / 8, "y": box["height"] * 3 / 4})
    assert page.locator("#tip").inner_text().split("\n") == ["fc2", "step 0", "not finite"]
    heat.focus()
    page.keyboard.press("ArrowUp")
    assert page.locator("#said").inner_text() == "fc1, step 0, gradient RMS 2.2e-02"


def test_dark_mode_follows_the_system_and_the_button(show: Any) -> None:
    light, dark = show(REPORTS["sick"], color_scheme="light"), show(REPORTS["sick"], color_scheme="dark")
    assert light.color("body") != dark.color("body")
    button = light.page.locator("#theme")
    assert button.get_attribute("aria-pressed") == "false"
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    assert light.color("body") == dark.color("body")
    assert light.color(".badge.error") == dark.color(".badge.error")
    assert light.page.evaluate("localStorage.length + sessionStorage.length + document.cookie.length") == 0


def test_a_link_opens_the_rule_it_leads_to(show: Any) -> None:
    page = show(REPORTS["sick"]).page
    documentation = page.locator("#rule-GC101")
    assert not documentation.evaluate("one => one.open")
    page.locator(".finding a.rule").first.click()
    assert documentation.evaluate("one => one.open")
    assert documentation.get_by_text("Something about").first.is_visible()


def test_the_skip_link_is_the_first_stop_and_leads_to_the_verdict(show: Any) -> None:
    page = show(REPORTS["sick"]).page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


def test_on_paper_evidence_is_open_and_nothing_is_folded(show: Any) -> None:
    page = show(REPORTS["folded"]).page
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert len(names(page)) == len(REPORTS["folded"].layers)
    assert page.locator(".finding details:not([open])").count() == 0
    page.emulate_media(media="print", color_scheme="dark")
    assert page.locator(".tools").is_hidden()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_hostile_names_stay_text(show: Any) -> None:
    page = show(evil_report(" ".join(EVIL))).page
    assert page.evaluate("window.owned") is None
    page.locator('[data-chart="m0-heat"]').focus()
    page.keyboard.press("ArrowRight")
    assert EVIL[1] in page.locator("#tip").inner_text()
    assert page.locator("#tip *:not(strong, div)").count() == 0
    assert page.locator("tr.layer").count() == 2
