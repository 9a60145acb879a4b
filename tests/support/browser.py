"""A real browser for tests: the system's Chromium without a window, driven through the system's own driver.

A missing browser fails the test with the line that installs it: nothing here skips or downloads. Everything that the
browser says against the page is kept by the browser itself: console messages, refusals by the content security policy,
requests that failed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

if TYPE_CHECKING:  # Selenium takes a while to import, and few tests need it
    from selenium.webdriver import Chrome, ChromeOptions

_INSTALL = "apt-get install --yes --no-install-recommends chromium chromium-driver"
_START_S = 120.0

T = TypeVar("T")


class Browser:
    """One window. `driver` is Selenium's."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    def open(self, address: str) -> None:
        """Goes there; what the console said before is forgotten."""
        self.complaints()
        self.driver.get(address)

    def complaints(self) -> list[str]:
        """Warnings and errors of the console since the last call, those of the content security policy among them."""
        entries: list[dict[str, Any]] = self.driver.get_log("browser")
        return [str(entry["message"]) for entry in entries if entry["level"] in ("WARNING", "SEVERE")]

    def text(self, selector: str) -> str:
        """What the first such element shows."""
        return str(self.run(f"return document.querySelector({selector!r})?.innerText ?? ''"))

    def texts(self, selector: str) -> list[str]:
        """What each such element holds, shown or not."""
        found: list[str] = self.run(
            f"return [...document.querySelectorAll({selector!r})].map(each => each.textContent)"
        )
        return found

    def run(self, script: str) -> Any:
        """A script's result, run beside the page."""
        return self.driver.execute_script(script)  # type: ignore[no-untyped-call]

    def await_(self, what: Callable[[], T], timeout_s: float = 60.0) -> T:
        """Asks until it is true; fails the test with what the page shows otherwise."""
        deadline = time.monotonic() + timeout_s
        while not (found := what()):
            if time.monotonic() > deadline:
                shown = self.run("return document.body?.innerText ?? ''")
                pytest.fail(f"not so within {timeout_s:g} s; the page shows:\n{shown[:3000]}\n{self.complaints()}")
            time.sleep(0.1)
        return found


@contextmanager
def new_browser(*, dark: bool = False) -> Iterator[Browser]:
    """A browser with a profile of its own, ended afterwards."""
    from selenium.webdriver import ChromeOptions

    chromium, driver_path = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if chromium is None or driver_path is None:
        pytest.fail(f"a browser test needs chromium (or google-chrome) and chromedriver; run: {_INSTALL}")
    options = ChromeOptions()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with tempfile.TemporaryDirectory(prefix="rfb", ignore_cleanup_errors=True) as profile:
        for argument in (
            "--headless=new",
            f"--user-data-dir={profile}",
            "--no-proxy-server",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--window-size=1400,1000",
            *(("--force-dark-mode", "--blink-settings=preferredColorScheme=0") if dark else ()),
            # Chromium refuses its sandbox to root.
            *(("--no-sandbox",) if os.geteuid() == 0 else ()),
        ):
            options.add_argument(argument)
        driver = _start(options, driver_path)
        try:
            yield Browser(driver)
        finally:
            driver.quit()


def _start(options: ChromeOptions, driver_path: str) -> Chrome:
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver import Chrome
    from selenium.webdriver.chrome.service import Service

    deadline = time.monotonic() + _START_S
    while True:
        try:
            return Chrome(options=options, service=Service(driver_path))
        except WebDriverException:
            # On a machine with much to do the driver gives up on a browser that only was slow.
            if time.monotonic() > deadline:
                raise


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser for the tests of a module."""
    # The driver is on this machine; a proxy of the environment is for others.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "localhost,127.0.0.1")
        patch.setenv("no_proxy", "localhost,127.0.0.1")
        with new_browser() as opened:
            yield opened
