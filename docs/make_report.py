"""Makes the pictures of the page on reports: ``uv run --extra demo python docs/make_report.py``.

``attribution report`` of a cup of coffee with the bundled SqueezeNet 1.1, photographed in a headless Chromium in light
and in dark; nothing is downloaded. Needs ``chromium`` and ``chromedriver``.
"""

import io
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from selenium import webdriver

from attribution import zoo
from attribution.cli import main as attribution

FOLDER = Path(__file__).parent / "pictures"
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--hide-scrollbars")
WIDTH, HEIGHT = 1120, 1330


def main() -> None:
    """Write a picture of the head of the page in each scheme."""
    with TemporaryDirectory() as folder:
        photo, page = Path(folder, "coffee.png"), Path(folder, "coffee.html")
        zoo.sample_photo("coffee").save(photo)
        if attribution(["report", str(photo), "--target", "espresso", "--target", "cup", "--out", str(page)]):
            raise SystemExit("the report failed")
        options = webdriver.ChromeOptions()
        for flag in (*FLAGS, f"--user-data-dir={folder}/profile"):
            options.add_argument(flag)
        driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver") or "chromedriver"))
        try:
            for scheme, name in (("light", "report.jpg"), ("dark", "report_dark.jpg")):
                feature = {"name": "prefers-color-scheme", "value": scheme}
                driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
                size = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
                driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
                driver.get(page.as_uri())
                shot = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
                shot.save(FOLDER / name, quality=85, optimize=True)
        finally:
            driver.quit()


if __name__ == "__main__":
    main()
