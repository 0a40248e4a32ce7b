"""The page as it is served, and as a browser shows it; one server for all of it."""

import gc
import json
import shutil
import socket
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from larvseg_jax.page.serve import running
from larvseg_jax.page.session import Limits

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # those of Gradio and what it imports

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --hide-scrollbars"
)
PATIENCE = 240  # seconds, on a machine that has other work


@pytest.fixture(scope="module")
def address(segmenter, tmp_path_factory):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    before, tempfile.tempdir = tempfile.tempdir, str(tmp_path_factory.mktemp("tmp"))
    try:
        with running({"m": segmenter, "n": segmenter}, port, Limits(3 << 29, 1)) as address:
            yield address
        assert list(Path(tempfile.tempdir).glob("larvseg-page-*")) == []
    finally:
        tempfile.tempdir = before
        gc.collect()  # event loops that Gradio leaves open warn here, and not in somebody else's test


def test_it_answers_to_this_machine_and_loads_nothing_from_elsewhere(address):
    assert address.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(address) as answer:
        policy, text = answer.headers["content-security-policy"], answer.read().decode()
    assert "default-src 'self'" in policy
    assert "http" not in policy
    assert "fonts.g" not in text
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(urllib.request.Request(address, headers={"Host": "elsewhere.example"}))


@pytest.fixture
def browser(tmp_path):
    if not (CHROMIUM and DRIVER):
        pytest.skip("no browser here: apt-get install chromium chromium-driver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in [*FLAGS.split(), f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1280,1000"]:
        options.add_argument(flag)
    options.add_experimental_option("prefs", {"download.default_directory": str(tmp_path / "saved")})
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.set_page_load_timeout(PATIENCE)
    yield driver
    driver.quit()


class Reader:
    """Waits for things on the page."""

    def __init__(self, driver):
        self.driver = driver

    def until(self, condition, what):
        from selenium.webdriver.support.ui import WebDriverWait

        ignored = [Exception]  # elements that the page replaces while they are read
        return WebDriverWait(self.driver, PATIENCE, 0.2, ignored).until(lambda _: condition(), what)

    def one(self, place):
        return self.until(lambda: self.driver.find_element("css selector", place), place)

    def text(self, place):
        return " ".join(
            self.driver.execute_script(
                "return [...document.querySelectorAll(arguments[0])].map(e => e.innerText)", place
            )
        )

    def press(self, place):
        self.driver.execute_script("arguments[0].click()", self.one(place))

    def picture(self, name, folder):
        self.driver.execute_script("window.scrollTo(0, 0)")
        self.driver.save_screenshot(str(folder / name))
        wide, room = self.driver.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
        assert wide <= room, f"{name}: {wide} pixels in {room}"
        pictures = self.boxes(".lv-picture")
        assert all(box["right"] <= room for box in [*pictures, *self.boxes(".lv-table")]), name
        return pictures

    def boxes(self, place):
        found = "return [...document.querySelectorAll(arguments[0])].map(e => e.getBoundingClientRect().toJSON())"
        return self.driver.execute_script(found, place)


def test_a_picture_is_segmented_pointed_at_taught_and_saved(address, browser, halves, tmp_path):
    from selenium.webdriver import ActionChains

    page = Reader(browser)
    browser.get(address)
    page.one("#lv-photo input[type=file]").send_keys(halves)
    page.one(".lv-picture img")

    field = page.one("#lv-classes input")
    for letters in ("do", "cat"):
        field.send_keys(letters, "\n")
    page.press("#lv-run")
    page.until(lambda: "sofa" not in page.text(".lv-table") and page.text(".lv-table"), "only the classes chosen")
    rows = set(page.text(".lv-table td:first-child").split())
    assert rows
    assert rows <= {"cat", "dog"}

    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", page.one(".lv-picture"))
    ActionChains(browser).move_to_element(page.one(".lv-picture svg")).perform()
    page.until(lambda: "score" in page.text(".lv-tip"), "name and score under the pointer")
    assert page.text(".lv-tip").split()[0] in rows

    ActionChains(browser).move_to_element_with_offset(page.one(".lv-picture svg"), -60, 0).click().perform()
    page.until(lambda: "1 click in 1 picture" in page.text("#lv-marked"), "the click")
    assert len(browser.find_elements("css selector", ".lv-clicks circle")) == 2  # in both pictures
    page.one("#lv-name input, #lv-name textarea").send_keys("my mug")
    page.press("#lv-teach")
    page.until(lambda: "my mug" in page.text(".lv-table"), "the taught class")
    first, second = page.picture("desktop.png", tmp_path)
    assert (first["top"], first["right"] < second["left"]) == (second["top"], True)

    page.one("#lv-text input, #lv-text textarea").send_keys("unicorn\n")
    page.until(lambda: "'unicorn' is not in the vocabulary" in page.text("[data-testid=toast-body]"), "the error")
    page.press("#lv-save")
    page.until(lambda: (tmp_path / "saved" / "two halves.zip").is_file(), "the zip")

    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", dict(width=390, height=844, deviceScaleFactor=2, mobile=True)
    )
    page.until(lambda: page.one(".lv-picture").size["width"] < 390, "a narrow page")
    first, second = page.picture("narrow.png", tmp_path)
    assert first["bottom"] < second["top"]

    log = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {m["params"]["request"]["url"] for m in log if m["method"] == "Network.requestWillBeSent"}
    assert address in asked
    assert [url for url in asked if url.startswith(("http", "ws")) and not url.startswith(address)] == []
