"""The report in a real browser: Chromium at the widths of a desk and of a phone, light and dark, and on paper."""

from __future__ import annotations

import io
import shutil
import warnings

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from fittings import need

import dgmm
from dgmm import GaussianMixture

pytestmark = pytest.mark.slow  # a browser takes a while to start

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
HOSTILE = "<script>document.title = 'taken over'</script> <img src='http://127.0.0.1:9/x.png' onerror='throw 1'>"
LONG = "a name without a space_" + "x" * 80
BEYOND = """() => [...document.querySelectorAll("body *")]
    .filter(e => !e.closest(".box"))
    .filter(e => e.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5)
    .map(e => e.outerHTML.slice(0, 80))"""
INK_AND_PAPER = """() => [...document.querySelectorAll("h1,h2,p,dt,dd,li,td,th,button,figcaption,code,footer")]
    .map(e => {
        let behind = e;
        const transparent = () => getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)";
        while (behind !== document.body && transparent()) behind = behind.parentElement;
        return [getComputedStyle(e).color, getComputedStyle(behind).backgroundColor];
    })"""
VIEWS = [(width, scheme) for width in (1280, 390) for scheme in ("light", "dark")]


@pytest.fixture(scope="module")
def browser():
    need("" if CHROMIUM else "chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Only the project's own page is opened; a sandbox needs more rights than a container gives.
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Of a selection with data, many components, long and hostile names: everything that a page can have."""
    rng = np.random.default_rng(0)
    label = rng.integers(6, size=2000)
    rows = rng.standard_normal((2000, 12)) + 7 * rng.standard_normal((6, 12))[label]
    frame = pd.DataFrame(rows, columns=[HOSTILE, LONG, *(f"feature {i}" for i in range(10))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = dgmm.select(frame, (4, 6), "spherical", random_state=0, max_iter=1)
    return dgmm.report(found.best, frame, tmp_path_factory.mktemp("report") / "report.html")


class Look:
    """A page that is open, and what the browser says meanwhile."""

    def __init__(self, browser, path, width, scheme):
        self.scheme = scheme
        self.context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
        self.page = self.context.new_page()
        self.said, self.asked = [], []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())


@pytest.fixture(scope="module", params=VIEWS, ids=lambda view: f"{view[0]}-{view[1]}")
def look(browser, report, request):
    width, scheme = request.param
    looked = Look(browser, report, width, scheme)
    yield looked
    looked.context.close()


def test_nothing_goes_wrong_and_nothing_is_asked_for(look, report):
    assert look.said == []
    assert [url for url in look.asked if not url.startswith("data:")] == [report.as_uri()]
    assert "taken over" not in look.page.title()


def test_the_page_never_scrolls_sideways(look):
    wide = look.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0
    # What is wider than the page scrolls in a box of its own.
    assert look.page.evaluate(BEYOND) == []


def test_pictures_are_drawn(look):
    sizes = look.page.evaluate("[...document.images].map(i => [i.complete, i.naturalWidth, i.clientWidth])")
    assert len(sizes) >= 6
    for complete, natural, shown in sizes:
        assert complete
        assert natural > 0, "the SVG is well-formed"
        assert shown > 250


def luminance(colour: str) -> float:
    channels = np.array([float(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_text_stands_out_from_what_is_behind_it(look):
    """The contrast that WCAG asks of text: 4.5."""
    pairs = look.page.evaluate(INK_AND_PAPER)
    assert len(pairs) > 50
    for ink, paper in {tuple(pair) for pair in pairs}:
        light, dark = sorted((luminance(ink), luminance(paper)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, f"{ink} on {paper}"


def test_pictures_follow_the_reader_into_the_dark(look):
    """What is written at the left of a picture, its ticks, is light on dark, or dark on light."""
    image = look.page.locator("figure img").first
    image.scroll_into_view_if_needed()
    pixels = matplotlib.image.imread(io.BytesIO(image.screenshot()), format="png")[..., :3].mean(axis=2)
    margin = pixels[:, : pixels.shape[1] // 10]
    paper = np.median(margin)
    if look.scheme == "dark":
        assert paper < 0.2
        assert margin.max() > 0.7
    else:
        assert paper > 0.9
        assert margin.min() < 0.3


def test_a_click_on_a_title_sorts(look):
    def column(index):
        return look.page.evaluate(
            f"[...document.querySelectorAll('tbody tr')].map(r => Number(r.cells[{index}].dataset.value))"
        )

    assert column(1) == sorted(column(1), reverse=True), "heaviest first"
    title = look.page.locator("thead th").nth(4)
    title.locator("button").click()
    assert column(4) == sorted(column(4), reverse=True)
    assert title.get_attribute("aria-sort") == "descending"
    look.page.keyboard.press("Enter")  # the button has the focus
    assert column(4) == sorted(column(4))
    assert title.get_attribute("aria-sort") == "ascending"
    assert look.said == []


def test_on_paper_nothing_is_cut_off(browser, report):
    looked = Look(browser, report, 1280, "dark")
    looked.page.emulate_media(media="print", color_scheme="light")
    hidden = looked.page.evaluate(
        "[...document.querySelectorAll('.box')].filter(e => e.scrollHeight > e.clientHeight + 2).length"
    )
    assert hidden == 0
    assert len(looked.page.pdf()) > 20_000
    looked.context.close()


def test_the_notebook_form_is_legible_in_the_dark(browser, tmp_path):
    """Notebooks set their own colours: the form takes them over, on any paper."""
    mixture = GaussianMixture(2, random_state=0).fit(np.random.default_rng(0).standard_normal((300, 2)))
    body = "margin: 0; background: #111; color: #eee"
    (tmp_path / "n.html").write_text(
        f"<!DOCTYPE html><title>n</title><body style='{body}'>{mixture._repr_html_()}"
    )
    looked = Look(browser, tmp_path / "n.html", 390, "light")
    inks = looked.page.evaluate("[...document.querySelectorAll('td,th,p')].map(e => getComputedStyle(e).color)")
    assert set(inks) == {"rgb(238, 238, 238)"}
    stroke = looked.page.evaluate("getComputedStyle(document.querySelector('polyline')).stroke")
    assert stroke == "rgb(238, 238, 238)"
    assert looked.page.evaluate("document.documentElement.scrollWidth") <= 390
    assert looked.said == []
    looked.context.close()
