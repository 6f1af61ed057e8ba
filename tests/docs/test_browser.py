"""The site as a browser shows it, opened from disk with no network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import chromium, require

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    program = chromium()
    playwright = require("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, site: Path):
    """Open a page of the site; at the end, nothing may have been asked of a network or written as an error."""
    context = browser.new_context(offline=True)
    page = context.new_page()
    asked, errors = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("requestfailed", lambda request: errors.append(f"{request.url}: {request.failure}"))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))

    def open_page(name: str | Path):
        page.goto(f"{site.as_uri()}/{name}", wait_until="load")
        return page

    yield open_page
    context.close()
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert errors == []


def test_every_page_opens_without_an_error(visit, site):
    for page in sorted(site.rglob("*.html")):
        name = page.relative_to(site)
        if name.parts[0] != "_static":
            assert visit(name).title()


def test_the_table_leads_to_the_page_of_an_optimizer(visit):
    page = visit("optimizers.html")
    page.click("table.autosummary >> text=AdamW")
    assert page.locator("h1").inner_text().startswith("AdamW")


def test_the_search_works_from_disk(visit):
    page = visit("search.html?q=Adagrad")
    page.wait_for_selector("#search-results li a")
    assert page.locator("#search-results li a", has_text="Adagrad").count()


def test_formulas_use_the_fonts_of_the_site(visit):
    page = visit("optimizers.html")
    page.click("table.autosummary >> text=RMSprop")
    formula = page.locator(".katex").first
    assert formula.count()
    page.evaluate("document.fonts.ready")
    assert page.evaluate(
        "[...document.fonts].some(font => font.family.startsWith('KaTeX') && font.status === 'loaded')"
    )
