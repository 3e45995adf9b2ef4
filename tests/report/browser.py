"""A headless Chromium that opens files, and tells what they show, say and ask for."""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
)
_DECODED = """
const done = arguments[arguments.length - 1];
const faulty = () => undefined;
Promise.all([...document.images].map((image) => image.decode().catch(faulty))).then(() => done());
"""
_BOX = """
arguments[0].scrollIntoView({ block: "start" });
const { x, y, width, height } = arguments[0].getBoundingClientRect();
return [x, y, width, height];
"""
_WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => window.violations.push(event.violatedDirective));
"""


class Browser:
    """One page at a time, 1200 × 900."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, path: Path, *, dark: bool = False, width: int = 1200) -> None:
        """Open a file; what earlier pages said is forgotten."""
        self.driver.get("about:blank")
        self.driver.set_window_size(width, 900)
        self.command("Emulation.setEmulatedMedia", media="", features=[_scheme(dark)])
        self.faults(), self.requests()
        self.driver.get(path.resolve().as_uri())
        self.driver.execute_async_script(_DECODED)

    def command(self, name: str, **parameters: Any) -> Any:
        """Of the DevTools protocol."""
        return self.driver.execute_cdp_cmd(name, parameters)

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script returns."""
        return self.driver.execute_script(script, *arguments)

    def all(self, selector: str) -> list[WebElement]:
        """The elements."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> WebElement:
        """The first element."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def faults(self) -> list[str]:
        """Errors of the console, and what the policy forbade, since the last call."""
        said = [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
        return said + list(self.run("const found = window.violations ?? []; window.violations = []; return found;"))

    def requests(self) -> list[str]:
        """Addresses that were asked for since the last call, other than pictures inside the page."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = [each["params"]["request"]["url"] for each in events if each["method"] == "Network.requestWillBeSent"]
        return [address for address in asked if not address.startswith(("data:", "about:"))]

    def shot(self, selector: str | None = None) -> npt.NDArray[np.float64]:
        """(H, W, 3) in 0…255: what is in the window, or an element that fits into it."""
        box = None if selector is None else self.run(_BOX, self.one(selector))
        with Image.open(io.BytesIO(self.driver.get_screenshot_as_png())) as image:
            shown = np.asarray(image.convert("RGB"), dtype=np.float64)
        if box is None:
            return shown
        left, top, width, height = map(round, box)
        assert top >= 0
        assert top + height <= len(shown)
        return shown[top : top + height, left : left + width]


@contextmanager
def opened(program: str | None, driver: str | None, profile: Path) -> Iterator[Browser]:
    """A browser with a fresh profile, which asks no network for anything."""
    options = webdriver.ChromeOptions()
    options.binary_location = program or "chromium"
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(executable_path=driver or "chromedriver")
    session = webdriver.Chrome(options=options, service=service)
    try:
        session.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": _WATCH})
        yield Browser(session)
    finally:
        session.quit()


def _scheme(dark: bool) -> dict[str, str]:
    return {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
