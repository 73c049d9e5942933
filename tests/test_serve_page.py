"""The page of `ganrun serve` in a browser: sliders, keys, a walk, a phone, dark, and errors in words."""

import os

import browser as browsers
import pytest
from PIL import Image
from serving import sampler_file, serving, translator_file, until

READY = "document.body.dataset.ready"


@pytest.fixture(scope="module")
def browser():
    found = browsers.started()
    yield found
    found.driver.quit()


@pytest.fixture(scope="module")
def server(browser, tmp_path_factory):
    with serving(sampler_file(tmp_path_factory.mktemp("page") / "generator.safetensors"), "most=64") as found:
        yield found


def visit(browser, url: str, width: int = 1200) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.driver.get(url)
    until(lambda: browser.run(READY))


def like(browser, scheme: str) -> None:
    """Light or dark, as a user's system asks for."""
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


def shot(browser, name: str) -> None:
    """Keeps a picture where $GANRUN_SHOTS says, to look at."""
    if folder := os.environ.get("GANRUN_SHOTS"):
        browser.driver.save_screenshot(f"{folder}/{name}.png")


def after(browser, act) -> str:
    """What the page says once it has answered."""
    before = int(browser.run(READY))
    act()
    until(lambda: int(browser.run(READY)) > before)
    return browser.run("byId('said').textContent")


def asked(browser) -> dict:
    return browser.run("body()")


def test_sliders_choose_what_is_asked_for(browser, server):
    visit(browser, server.url)
    shot(browser, "start")
    assert asked(browser) == {"num": 16, "seed": 0, "format": "grid"}
    assert browser.run("[byId('picture').naturalWidth > 0, byId('picture').hidden]") == [True, False]
    first = browser.run("byId('picture').src")
    assert after(browser, lambda: browser.set("seed", 7)).startswith("16 in ")
    after(browser, lambda: browser.set("label", 2))
    after(browser, lambda: browser.set("truncation", 25))
    assert asked(browser) == {"num": 16, "seed": 7, "format": "grid", "label": 2, "truncation": 0.5}
    assert browser.run("byId('picture').src") != first
    assert browser.run("byId('seed-number').value") == "7" and '"label":2' in browser.run("byId('curl').textContent")
    after(browser, lambda: browser.set("num", 0))
    assert asked(browser)["format"] == "png" and browser.run("byId('picture').naturalWidth") == 16
    shot(browser, "one")
    assert browser.errors() == []


def test_a_walk_by_keys_alone(browser, server):
    from selenium.webdriver.common.keys import Keys

    visit(browser, server.url)
    assert not browser.run("byId('at').matches(':enabled')")
    after(browser, lambda: browser.run("byId('walk')").send_keys(Keys.SPACE))
    after(browser, lambda: browser.run("byId('at')").send_keys(Keys.ARROW_RIGHT))
    assert asked(browser) | {"at": 0.01, "to": 1} == asked(browser)
    browser.run("byId('play')").send_keys(Keys.ENTER)
    until(lambda: int(browser.run("byId('at').value")) > 3)
    shot(browser, "walk")
    assert browser.run("byId('play').getAttribute('aria-pressed')") == "true"
    browser.run("byId('play')").send_keys(Keys.ENTER)
    until(lambda: not browser.run("state.running"))
    stopped = browser.run("byId('at').value")
    assert browser.run("byId('play').textContent") == "Play" and browser.run("byId('at').value") == stopped
    focusable = browser.run("[...document.querySelectorAll('input, select, button, a')].filter((e) => e.tabIndex < 0)")
    assert focusable == [] and browser.errors() == []


def test_a_refused_request_is_told_in_the_servers_words(browser, server):
    visit(browser, server.url)
    told = after(browser, lambda: browser.set("seed-number", "1e19"))
    assert told == "seed=10000000000000000000; expected at most 9,223,372,036,854,775,807"
    shot(browser, "refused")
    assert browser.run("byId('said').classList.contains('bad')")
    assert after(browser, lambda: browser.set("seed", 5)).startswith("16 in ")
    assert all("422" in line for line in browser.errors())


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_phone_and_the_dark(browser, server, path):
    like(browser, "dark")
    visit(browser, server.url + path, width=390)
    shot(browser, f"phone{path.replace('/', '-')}")
    assert browser.run("document.documentElement.scrollWidth") == 390
    assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"
    like(browser, "light")
    assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(246, 247, 248)"
    assert browser.errors() == []


def test_the_api_page_lists_every_route_and_key(browser, server):
    visit(browser, f"{server.url}/docs")
    shot(browser, "docs")
    text = browser.run("document.body.textContent")
    for each in ("POST /sample", "POST /translate", "GET /metrics", "truncation_cutoff", "from 0 to 1", "429"):
        assert each in text
    assert browser.errors() == []


def test_an_image_is_translated(browser, tmp_path):
    Image.effect_noise((40, 24), 60).convert("RGB").save(tmp_path / "in.png")
    with serving(translator_file(tmp_path / "generator.safetensors")) as server:
        visit(browser, server.url)
        browser.run("byId('file')").send_keys(str(tmp_path / "in.png"))
        until(lambda: browser.run(READY) == "in.png")
        shot(browser, "translator")
        assert browser.run("byId('said').textContent").startswith("in.png in ")
        assert browser.run("[byId('picture').naturalWidth, byId('picture').naturalHeight]") == [40, 24]
        (tmp_path / "bad.png").write_bytes(b"no image")
        browser.run("byId('file')").send_keys(str(tmp_path / "bad.png"))
        until(lambda: browser.run(READY) == "bad.png")
        assert "not an image that Pillow can read" in browser.run("byId('said').textContent")
