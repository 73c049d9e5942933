"""A headless Chromium for the tests of pages: one for each test process, or a skip that says why there is none."""

import shutil
from pathlib import Path

import pytest


class Browser:
    """Opens files from the disk, as a user does, and looks at what they do."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, path: Path, width: int = 1200) -> None:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.get(path.absolute().as_uri())

    def run(self, script: str, *args):
        """The value of a JavaScript expression."""
        return self.driver.execute_script(f"return {script}", *args)

    def set(self, name: str, value) -> None:
        """Gives an input a value, as a user's hand does."""
        act = "arguments[0].value = arguments[1], arguments[0].dispatchEvent(new Event('input', {bubbles: true}))"
        self.driver.execute_script(act, self.run("byId(arguments[0])", name), value)

    def errors(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]


def started() -> Browser:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    from selenium.common.exceptions import WebDriverException

    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not chromedriver:
        pytest.skip("no Chromium: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    try:
        return Browser(webdriver.Chrome(options, webdriver.ChromeService(chromedriver)))
    except WebDriverException as error:
        pytest.skip(f"Chromium does not start: {str(error).splitlines()[0]}")
