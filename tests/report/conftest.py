"""A page with all that a page may show, and a browser that opens it from the disk."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.report.browser import Browser, opened
from tests.report.pages import everything


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return everything().save(tmp_path_factory.mktemp("report") / "everything.html")


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if (program is None or driver is None) and not os.environ.get("CI"):
        pytest.skip("no chromium and chromedriver: apt-get install chromium chromium-driver")
    with opened(program, driver, tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def browser(chromium: Browser, page: Path) -> Browser:
    """The page, just opened."""
    chromium.open(page)
    return chromium
