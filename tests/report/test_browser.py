"""A page in a real browser, opened from the disk: what it shows, how it is used, and what it never does."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from attribution.report import Report
from tests.report.browser import Browser
from tests.report.pages import HOSTILE, item
from tests.report.reading import pixels
from tests.report.scripts import CONTRAST, UNNAMED

TITLE = "Cups & saucers · Sequential"
STACK = "#item-0 .viewer .stack"


def changed(before: np.ndarray, after: np.ndarray) -> float:
    """Mean change of a pixel, 0…255; places on a page are no whole pixels, so that one row may be cut off."""
    height, width = (min(sides) for sides in zip(before.shape[:2], after.shape[:2], strict=True))
    assert max(abs(before.shape[k] - after.shape[k]) for k in (0, 1)) <= 1
    return float(np.abs(before[:height, :width] - after[:height, :width]).mean())


def enlarged(browser: Browser, selector: str, size: np.ndarray) -> np.ndarray:
    """A picture of the page, decoded here, as large as a screenshot."""
    source = pixels(attribute(browser.one(selector), "src"))[..., :3]
    image = Image.fromarray((source * 255).round().astype(np.uint8))
    return np.asarray(image.resize(size.shape[1::-1], Image.Resampling.BILINEAR), dtype=np.float64)


def switch(browser: Browser, group: str, value: str) -> None:
    """By the keyboard alone: to the group, and along it until the value is reached."""
    for _ in range(6):
        chosen = browser.one(f"input[name='{group}']:checked")
        if chosen.get_attribute("value") == value:
            return
        chosen.send_keys(Keys.ARROW_RIGHT)
    raise AssertionError(f"{group} has no {value}")


def attribute(element: WebElement, name: str) -> str:
    return element.get_attribute(name) or ""


def shown(browser: Browser) -> str:
    return browser.one("#item-0 .viewer figcaption").text


def test_it_is_quiet_and_asks_for_nothing(browser: Browser, page: Path) -> None:
    assert browser.requests() == [page.as_uri()]
    assert browser.faults() == []
    assert browser.driver.title == TITLE
    whole = browser.shot()
    assert whole.std() > 20
    assert browser.shot(STACK).std() > 20


def test_what_it_must_never_do_is_noticed(chromium: Browser, page: Path, tmp_path: Path) -> None:
    """The tests above have eyes: a page that asks, runs or styles more is caught."""
    text = page.read_text(encoding="utf-8")
    for planted in (
        "<script>document.title = 'caught'</script>",
        "<p style='color: red'>",
        "<script src='x.js'></script>",
    ):
        (tmp_path / "bad.html").write_text(text.replace("</main>", planted + "</main>"), encoding="utf-8")
        chromium.open(tmp_path / "bad.html")
        assert chromium.faults() != []
        assert chromium.driver.title == TITLE
    open_ = text.replace("default-src 'none'", "default-src *").replace("img-src data:", "img-src *")
    open_ = open_.replace("default-src &#39;none&#39;", "default-src *")
    (tmp_path / "asks.html").write_text(open_.replace("</main>", "<img src='other.png'></main>"), encoding="utf-8")
    chromium.open(tmp_path / "asks.html")
    assert any(address.endswith("other.png") for address in chromium.requests())
    chromium.faults()


def test_the_slider_goes_from_the_photo_to_the_map(browser: Browser) -> None:
    slider = browser.one("#item-0-opacity")
    slider.send_keys(Keys.HOME)
    photo = browser.shot(STACK)
    assert changed(photo, enlarged(browser, "#item-0 .photo img", photo)) < 6
    slider.send_keys(Keys.END)
    full = browser.shot(STACK)
    assert changed(full, enlarged(browser, "#item-0 .tile .map", full)) < 6
    assert changed(photo, full) > 20
    for _ in range(50):
        slider.send_keys(Keys.ARROW_LEFT)
    assert browser.one("#item-0 output").text == "50 %"
    assert changed(browser.shot(STACK), (photo + full) / 2) < 2
    assert changed(browser.shot(STACK), photo) > 5
    assert browser.faults() == []


def test_switches_change_what_is_seen_and_said(browser: Browser) -> None:
    seen = [browser.shot(STACK)]
    assert "Grad-CAM" in shown(browser)
    for group, value, words in (
        ("item-0-layer-grad_cam", "4", "4"),
        ("item-0-target-grad_cam", "saucer (3)", "saucer (3)"),
        ("item-0-technique", "input_x_gradient", "Input × gradient"),
    ):
        switch(browser, group, value)
        assert words in shown(browser)
        now = browser.shot(STACK)
        assert min(changed(now, before) for before in seen) > 1
        seen.append(now)
        assert words in attribute(browser.one("#item-0 .status"), "textContent")
    assert "saucer (3)" in shown(browser)  # the target stays where a technique has it
    assert browser.one("#item-0 .viewer .signed").is_displayed()
    assert [each.is_displayed() for each in browser.all("#item-0 fieldset[data-choice=layer]")] == [False]
    pressed = browser.all("#item-0 .pick[aria-pressed=true]")
    assert len(pressed) == 1
    assert "Input × gradient of saucer (3)" in attribute(pressed[0], "aria-label")
    browser.all("#item-0 .pick")[0].send_keys(Keys.ENTER)
    assert "Grad-CAM" in shown(browser)
    assert changed(browser.shot(STACK), seen[0]) < 1
    assert browser.one("#item-0-technique, input[name='item-0-technique']:checked").get_attribute("value") == "grad_cam"


def test_channels_turn_page_by_page(browser: Browser) -> None:
    section = "#item-0 .channels "
    back, on = browser.all(section + "button")
    before = browser.shot(section + ".sheet:not([hidden]) .cells")
    assert "channels 0 to 31 of 40" in browser.one(section + ".sheet:not([hidden]) figcaption").text
    on.send_keys(Keys.ENTER)
    assert "channels 32 to 39 of 40" in browser.one(section + ".sheet:not([hidden]) figcaption").text
    assert "channels 32 to 39" in attribute(browser.one(section + ".where"), "textContent")
    assert (back.get_attribute("aria-disabled"), on.get_attribute("aria-disabled")) == ("false", "true")
    after = browser.shot(section + ".sheet:not([hidden]) .cells")
    assert after.shape != before.shape
    on.send_keys(Keys.ENTER)
    assert "channels 32 to 39 of 40" in browser.one(section + ".sheet:not([hidden]) figcaption").text
    switch(browser, "item-0-channels", "1")
    assert "channels 0 to 7 of 8" in browser.one(section + ".sheet:not([hidden]) figcaption").text
    assert not browser.all(section + "button")[0].is_displayed()


def test_captions_stand_below_their_channels(browser: Browser) -> None:
    image = browser.one("#item-0 .sheet:not([hidden]) .cells img").rect
    lines = browser.all("#item-0 .sheet:not([hidden]) li")
    for k in (0, 7, 8, 31):
        place = lines[k].rect
        row, column = divmod(k, 8)
        assert abs(place["x"] - image["x"] - column * image["width"] / 8) < 2
        bottom = image["y"] + (row + 1) * image["height"] / 4
        assert bottom - 0.2 * image["height"] / 4 < place["y"] < place["y"] + place["height"] <= bottom + 1


def test_names_are_text(browser: Browser) -> None:
    assert HOSTILE in [each.text for each in browser.all("h2")]
    assert browser.driver.title == TITLE
    assert len(browser.all("script")) == 1
    assert browser.all("img[onerror]") == []
    turned = next(each.text for each in browser.all("h2") if "exe" in each.text)
    assert turned == "gnp\\u202e.exe\\x07\\ud800"


def test_the_keyboard_reaches_everything_and_shows_where_it_is(browser: Browser) -> None:
    browser.one("body").send_keys(Keys.TAB)
    assert browser.driver.switch_to.active_element.text == "Skip to the maps"
    reached: list[WebElement] = []
    for _ in range(60):
        here = browser.driver.switch_to.active_element
        if here in reached or here.tag_name == "body":
            break
        reached.append(here)
        mark = browser.run(
            "const own = getComputedStyle(arguments[0]); const next = arguments[0].nextElementSibling;"
            "return [own, next && getComputedStyle(next)].filter(Boolean).map((s) => s.outlineStyle + s.outlineWidth);",
            here,
        )
        assert any(each == "solid3px" for each in mark), attribute(here, "outerHTML")[:200]
        here.send_keys(Keys.TAB)
    names = {f"{each.tag_name} {each.get_attribute('type') or ''}".strip() for each in reached}
    assert {"a", "input radio", "input range", "button button", "div", "pre"} <= names


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_word_can_be_read(chromium: Browser, page: Path, dark: bool) -> None:
    chromium.open(page, dark=dark)
    paper = chromium.shot()[-20:, :8].mean()
    assert (paper < 60) if dark else (paper > 230)
    faint = chromium.run(CONTRAST)
    assert faint == []


def test_a_faint_word_would_be_found(browser: Browser) -> None:
    browser.run("document.querySelector('.aside').style.color = '#bbbbbb'")
    assert len(browser.run(CONTRAST)) == 1


def test_everything_has_a_name(browser: Browser) -> None:
    assert len(browser.all("h1")) == len(browser.all("main")) == len(browser.all("header")) == 1
    assert browser.run("return document.documentElement.lang") == "en"
    assert browser.run(UNNAMED) == []
    levels = [int(each.tag_name[1]) for each in browser.all("h1, h2, h3, h4")]
    assert all(after - before <= 1 for before, after in pairwise(levels))
    ids = browser.run("return [...document.querySelectorAll('[id]')].map((each) => each.id)")
    assert len(ids) == len(set(ids))
    browser.run("document.querySelector('input[type=range]').labels[0].remove()")
    assert browser.run(UNNAMED) == ["item-0-opacity"]


@pytest.mark.parametrize("width", [1200, 500])
def test_nothing_runs_out_of_the_page(chromium: Browser, page: Path, width: int) -> None:
    chromium.open(page, width=width)
    assert chromium.run("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_print_shows_every_map(browser: Browser) -> None:
    browser.command("Emulation.setEmulatedMedia", media="print")
    assert all(each.is_displayed() for each in browser.all("#item-0 .tile .map"))
    assert not any(each.is_displayed() for each in browser.all("#item-0 .viewer, input, button"))


def test_without_scripts_every_map_is_there(chromium: Browser, page: Path) -> None:
    chromium.command("Emulation.setScriptExecutionDisabled", value=True)
    try:
        chromium.driver.get(page.as_uri())
        assert len(chromium.all("#item-0 .tile .map")) == 8
        assert chromium.shot().std() > 20
    finally:
        chromium.command("Emulation.setScriptExecutionDisabled", value=False)


def test_one_map_needs_no_switch(chromium: Browser, tmp_path: Path) -> None:
    answer = item().answers["saliency"]
    cut = type(answer)(
        **{
            **vars(answer),
            "maps": {"input": answer.maps["input"][:, :1]},
            "target": None,
            "score": None,
            "scores": None,
        }
    )
    chromium.open(Report(items=[item(answers={"saliency": cut})]).save(tmp_path / "one.html"))
    assert chromium.all(".choice") == []
    assert [each.is_displayed() for each in chromium.all(".tile")] == [False]
    assert chromium.shot(".viewer .stack").std() > 10
    assert chromium.faults() == []
