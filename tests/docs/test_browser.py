"""The site as a browser shows it: from disk with no network and from a server, light and dark, wide and narrow."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import pytest

from mlx_optimizers.backends.reference import Reference
from mlx_optimizers.conformance import cases_of
from mlx_optimizers.oracle import format_of
from tests.docs import axe
from tests.docs.copies import ROOT
from tests.expected import EIGHT
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
SIZES = {"desktop": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}
PAIRS = [("light", "desktop"), ("dark", "phone")]
SCREENSHOTS = ROOT / "build" / "screenshots"
SHOWN = {
    "index.html",
    "optimizers.html",
    "results.html",
    "performance.html",
    "guides/index.html",
    "guides/interval.html",
}
SHOWN |= {f"generated/mlx_optimizers.{name}.html" for name in ("SGD", "Adam", "Lion", "Muon", "Optimizer")}
"""Screenshots of these pages are kept."""


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    program = chromium()
    playwright = require("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def server(site: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site)) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


def left(request) -> bool:
    """Tell whether a request ended as its page was left: that of the tab's icon, which comes after the page has loaded.

    An icon that is not there fails in another way.
    """
    return request.failure == "net::ERR_ABORTED" and request.url.endswith("/_static/logo.svg")


@pytest.fixture(params=["disk", "server"])
def visit(request, browser, site: Path) -> Iterator[Callable]:
    """Open a page of the site; at the end, nothing may have been asked of another host or written as an error."""
    offline = request.param == "disk"
    base = site.as_uri() if offline else request.getfixturevalue("server")
    context = browser.new_context(offline=offline)
    page = context.new_page()
    asked, errors = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("requestfailed", lambda request: left(request) or errors.append(f"{request.url}: {request.failure}"))
    page.on("response", lambda reply: errors.append(f"{reply.url}: {reply.status}") if reply.status >= 400 else None)
    page.on("console", lambda said: errors.append(f"{said.text} {said.location}") if said.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))

    def open_page(name: str | Path):
        page.goto(f"{base}/{name}", wait_until="load")
        return page

    yield open_page
    context.close()
    assert [url for url in asked if not url.startswith((base, "data:"))] == []
    assert errors == []


@pytest.fixture
def from_disk(browser, site: Path) -> Iterator[Callable]:
    """Open a page from disk, for what does not depend on where the site is."""
    context = browser.new_context(offline=True, reduced_motion="reduce")
    page = context.new_page()

    def open_page(name: str | Path):
        page.goto(f"{site.as_uri()}/{name}", wait_until="load")
        return page

    yield open_page
    context.close()


def pages_of(site: Path) -> list[str]:
    names = [page.relative_to(site) for page in sorted(site.rglob("*.html"))]
    return [name.as_posix() for name in names if name.parts[0] != "_static"]


def kinds_of(site: Path) -> list[str]:
    """Leave out the pages of a kind but one: those of sources, and those of what a deeper module has."""
    kinds = {}
    for name in pages_of(site):
        module = name.removesuffix(".html").rpartition(".")[0]
        kind = "source" if name.count("/") > 1 else module if "." in module else name
        kinds.setdefault(kind, name)
    return list(kinds.values())


@pytest.mark.parametrize("visit", ["disk"], indirect=True)
def test_every_page_opens_without_an_error_and_fits_every_screen(visit, site):
    """Each size in one scheme, as the schemes differ in colours alone."""
    wide = []
    for name in pages_of(site):
        page = visit(name)
        assert page.title()
        assert page.locator(".katex-error").count() == 0
        for scheme, size in PAIRS:
            page.emulate_media(color_scheme=scheme)
            page.set_viewport_size(SIZES[size])
            if page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"):
                wide.append((name, scheme, size))
    assert wide == []


@pytest.mark.parametrize("visit", ["server"], indirect=True)
def test_a_page_of_every_kind_opens_without_an_error_from_a_server(visit, site):
    for name in kinds_of(site):
        assert visit(name).title()


ONCE = """() => {
    const seen = new Set();
    for (const token of document.querySelectorAll(".highlight span")) {
        if (token.textContent.length < 2 || seen.has(token.className)) token.replaceWith(token.textContent);
        else seen.add(token.className);
    }
    for (const formula of [...document.querySelectorAll(".katex")].slice(20)) formula.replaceWith("f(x)");
}"""
"""Leave one token of each kind coloured in a page's code, as all have its colour, and twenty formulas as they are.

Axe takes seconds for thousands. One token of two letters at least, as axe does not judge the contrast of one.
"""


@pytest.mark.parametrize(("scheme", "size"), PAIRS)
def test_no_page_keeps_anybody_out(from_disk, site, scheme, size):
    """axe-core finds no serious or critical fault. Contrast depends on the scheme, and the visible parts on size.

    The visible parts are those of the theme: dark on a phone the pages in `SHOWN` have them all, and others get the
    contrast alone.
    """
    program, found = axe.script(), {}
    kinds = kinds_of(site)
    assert set(kinds) > SHOWN and len(kinds) > 50
    for name in kinds:
        rules = "" if scheme == "light" or name in SHOWN else ", runOnly: ['color-contrast']"
        page = from_disk(name)
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size(SIZES[size])
        page.evaluate(ONCE)
        page.evaluate(program)
        faults = f"axe.run({{resultTypes: ['violations']{rules}}}).then(result => result.violations)"
        for fault in page.evaluate(faults):
            if fault["impact"] in ("serious", "critical"):
                found.setdefault(fault["id"], []).append((name, fault["nodes"][0]["html"][:200]))
    assert found == {}


@pytest.mark.parametrize("kind", ["mi", "kn"])
def test_a_pale_colour_of_one_kind_of_token_is_found(from_disk, kind):
    page = from_disk("index.html")
    assert page.locator(f".highlight .{kind}").first.inner_text() in ("0", "import")
    page.add_style_tag(content=f".highlight .{kind} {{color: #ddd !important}}")
    page.evaluate(ONCE)
    page.evaluate(axe.script())
    found = page.evaluate("axe.run({runOnly: ['color-contrast']}).then(result => result.violations)")
    assert [fault["id"] for fault in found] == ["color-contrast"]


@pytest.mark.parametrize(("scheme", "size"), PAIRS)
def test_screenshots_of_the_main_pages_are_kept(from_disk, site, scheme, size):
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    for name in sorted(SHOWN & set(pages_of(site))):
        page = from_disk(name)
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size(SIZES[size])
        assert page.evaluate("document.documentElement.dataset.theme") == scheme
        file = SCREENSHOTS / f"{name.removesuffix('.html').replace('/', '-')}-{scheme}-{size}.png"
        page.screenshot(path=file, full_page=True)
        assert file.stat().st_size > 10_000


PAINTED = """() => new Promise((resolve) => new PerformanceObserver((list) => {
    const [paint] = list.getEntriesByName("first-contentful-paint");
    if (paint) resolve(paint.startTime);
}).observe({type: "paint", buffered: true}))"""


def test_the_first_page_shows_in_under_a_second(from_disk):
    """The fastest of three counts: a busy machine may take longer."""
    page, times = from_disk("index.html"), []
    for _ in range(3):
        page.reload(wait_until="load")
        times.append(page.evaluate(PAINTED))
    assert min(times) < 1000


@pytest.mark.parametrize("size", SIZES)
def test_the_first_screen_says_what_this_is_and_leads_three_kinds_of_readers_on(from_disk, size):
    page = from_disk("index.html")
    page.set_viewport_size(SIZES[size])
    cards = page.locator(".sd-card")
    below = cards.nth(2).bounding_box()
    assert below["y"] + below["height"] <= SIZES[size]["height"] * 1.1
    addresses = [cards.nth(index).locator("a.sd-stretched-link").get_attribute("href") for index in range(3)]
    paths = ["optimizers.html", "guides/check_your_backend.html", "guides/check_your_port.html"]
    assert [address.partition("#")[0] for address in addresses] == paths
    assert "ε inside the square root" in page.locator("pre").first.inner_text()


def test_the_ten_links_of_the_table_lead_to_their_pages(visit):
    expected = ["OptimizerState", "Optimizer", *EIGHT]
    for index, name in enumerate(expected):
        page = visit("optimizers.html")
        links = page.locator("table.autosummary").first.locator("a")
        assert links.all_inner_texts() == expected
        with page.expect_navigation(wait_until="load"):
            links.nth(index).click()
        assert page.locator("h1").inner_text().startswith(name)


@pytest.mark.parametrize("word", ["epsilon", "Adagrad"])
def test_the_search_finds(visit, word):
    page = visit(f"search.html?q={word}")
    page.wait_for_selector("#search-results li a")
    assert page.locator("#search-results li a").count() > 1


def test_formulas_use_the_fonts_of_the_site(visit):
    page = visit("generated/mlx_optimizers.RMSprop.html")
    formula = page.locator(".katex").first
    assert formula.count()
    page.evaluate("document.fonts.ready")
    assert page.evaluate(
        "[...document.fonts].some(font => font.family.startsWith('KaTeX') && font.status === 'loaded')"
    )


# The stepper


def text(value: object) -> str:
    """A hyperparameter as a reader types it."""
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(repr, value)) if isinstance(value, list | tuple) else repr(value)


def stepper(optimizer: str) -> str:
    return f"generated/mlx_optimizers.{optimizer}.html"


@pytest.mark.parametrize("optimizer", EIGHT)
def test_a_stepper_gives_the_bits_of_the_class_in_ten_published_cases(from_disk, optimizer):
    form, page = format_of("float32"), from_disk(stepper(optimizer))
    cases = list(cases_of(optimizer))[::2][:8]
    cases += [case for case in cases_of(optimizer) if case not in cases][-2:]
    assert len(cases) == 10
    for index, case in enumerate(cases):
        outcome, element = Reference().run(case), index % case.parameter.size
        settings = {name: text(value) for name, value in case.hyperparameters.items()}
        settings["w"] = text(float(case.parameter[element]))
        settings["g"] = text([float(x) for x in case.gradients[:, element]])
        settings["steps"] = str(len(case.gradients))
        for name, value in settings.items():
            field = page.locator(f"#live-{name}")
            if value in ("true", "false"):
                field.set_checked(value == "true")
            else:
                field.fill(value)
        assert page.locator("#live-message").inner_text() == "", case.id
        for letter, values in {"w": outcome.parameters, **outcome.state}.items():
            shown = page.locator(f'.live-table tbody td.bits[data-of="{letter}"]').all_inner_texts()
            assert shown[1:] == form.bits(np.ascontiguousarray(values[:, element])), (case.id, letter)


@pytest.mark.parametrize("optimizer", EIGHT)
def test_a_link_carries_the_settings_of_a_stepper(from_disk, optimizer):
    settings = {"w": "2.5", "slope": "true", "steps": "7", "learning_rate": "0.25"}
    page = from_disk(f"{stepper(optimizer)}#live&{urlencode(settings)}")
    rows = page.locator(".live-table tbody tr")
    assert rows.count() == 8
    assert [rows.nth(1).locator("td").nth(0).inner_text(), rows.nth(0).locator("td").nth(1).inner_text()] == ["2.5"] * 2
    shown = page.locator(".live-table").inner_text()
    page.locator(".live-link").click()
    assert page.locator(".live-table").inner_text() == shown
    address = page.url
    page.goto("about:blank")
    page.goto(address)
    assert page.locator(".live-table").inner_text() == shown


def test_a_stepper_is_used_by_keyboard_alone(from_disk):
    page = from_disk(stepper("Adam"))
    page.locator("#live-w").focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("3")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "live-g"
    assert page.locator(".live-table tbody td").nth(1).inner_text() == "3"
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert page.locator("#live-slope").is_checked()
    for _ in range(12):
        if page.evaluate("document.activeElement.id") == "live-step":
            break
        page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    assert page.locator(".live-chosen label").inner_text() == "Step 2 of 12"
    assert page.locator(".live-table tr.chosen th").inner_text() == "2"


def test_a_stepper_is_used_on_a_phone_in_the_dark(from_disk):
    page = from_disk(stepper("AdamW"))
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size(SIZES["phone"])
    for field in page.locator(".live input, .live button, .live-link").all():
        box = field.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= SIZES["phone"]["width"]
    page.locator("#live-weight_decay").fill("0.5")
    page.locator("#live-slope").check()
    assert page.locator("#live-message").inner_text() == ""
    assert page.locator(".live-table tbody tr").count() == 13
    ink, ground = (page.evaluate(f"getComputedStyle(document.body).{name}") for name in ("color", "backgroundColor"))
    assert min(map(int, re.findall(r"\d+", ink)[:3])) > 128 > max(map(int, re.findall(r"\d+", ground)[:3]))


def test_a_stepper_draws_the_path_that_its_table_lists(from_disk):
    page = from_disk(f"{stepper('SGD')}#live&momentum=0.9&slope=true&steps=20")
    rows = page.locator(".live-table tbody tr").all()
    w = [float(row.locator("td").nth(1).inner_text()) for row in rows]
    points = [
        (float(point.get_attribute("cx")), float(point.get_attribute("cy"))) for point in page.locator(".point").all()
    ]
    assert len(points) == len(w) == 21
    across, down = zip(*points, strict=True)
    assert np.ptp(np.diff(across)) < 1e-9
    slope, level = np.polyfit(w, down, 1)  # upwards is less in SVG
    assert slope < 0
    assert np.abs(np.polyval((slope, level), w) - down).max() < 1e-3
    line = [tuple(map(float, pair.split(","))) for pair in page.locator(".path").get_attribute("points").split()]
    assert line == points


@pytest.mark.parametrize(
    ("optimizer", "field", "value", "complaint"),
    [
        ("Adam", "betas", "0.9", "betas must be two numbers in [0, 1)"),
        ("Adam", "betas", "0.9, 1", "betas must be two numbers in [0, 1)"),
        ("RMSprop", "eps", "0", "eps must be a number > 0"),
        ("SGD", "dampening", "1.5", "dampening must be a number in [0, 1]"),
        ("SGD", "nesterov", "true", "nesterov needs momentum above 0"),
        ("Lion", "steps", "1.5", "steps must be a whole number"),
        ("Lion", "g", "one", "g must be numbers, not one"),
        ("Lion", "learning_rate", "1, 2", "learning_rate has 2 numbers for 12 steps"),
    ],
)
def test_a_stepper_says_what_a_field_takes(from_disk, optimizer, field, value, complaint):
    page = from_disk(f"{stepper(optimizer)}#live&{urlencode({field: value})}")
    assert complaint in page.locator("#live-message").inner_text()
