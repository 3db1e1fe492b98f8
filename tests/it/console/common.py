"""What the scripts share: a browser that notes what a console must not do, and the REST API beside it."""

import contextlib
import json
import os
import urllib.request

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright

expect.set_options(timeout=20_000)
# Where screenshots go, for people.
SHOTS = os.environ.get("BACKSTAY_SCREENSHOTS")


class Watched:
    """A page, with what went wrong in it."""

    def __init__(self, context, address):
        self.address = address
        self.wrong = []
        self.allowed = []
        self.page = context.new_page()
        self.page.set_default_timeout(20_000)
        self.page.on("console", self.said)
        self.page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        self.page.on("request", self.asked)

    def said(self, message):
        if message.type in ("error", "warning") and not any(part in f"{message.text} {message.location}" for part in self.allowed):
            self.wrong.append(f"{message.type}: {message.text} {message.location}")

    def asked(self, request):
        if not request.url.startswith((f"{self.address}/", "blob:")):
            self.wrong.append(f"a request to {request.url}")

    def deletes(self, name):
        """From here on the pipeline may be gone while its page is just asking for it, which a browser tells of."""
        self.allowed.append(f"404 (Not Found) {{'url': '{self.address}/v0/pipelines/{name}")

    def goto(self, route=""):
        self.page.goto(f"{self.address}/#/{route}")

    def shot(self, name):
        if SHOTS:
            os.makedirs(SHOTS, exist_ok=True)
            self.page.screenshot(path=f"{SHOTS}/{name}.png")


@contextlib.contextmanager
def browser(address, **options):
    """A page of a new browser; at its end nothing may have gone wrong in it."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=os.environ["BACKSTAY_CHROMIUM"])
        watched = Watched(chromium.new_context(**options), address)
        try:
            yield watched
        except BaseException:
            watched.shot("failure")
            print("the page was at", watched.page.url, "and said", watched.wrong)
            print(watched.page.locator("body").inner_text()[:3000])
            raise
        chromium.close()
        assert not watched.wrong, watched.wrong


def api(address, path, method="GET", body=None):
    """An answer of the REST API."""
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(address + path, method=method, data=data)) as answer:
        return json.loads(answer.read() or "null")


def fits(page, where):
    """Nothing scrolls sideways but what says so itself."""
    width, room = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert width <= room, f"{where} is {width} wide in {room}"


def accessible(page, where):
    """No fault that axe finds."""
    found = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]})
    faults = [(fault["id"], [node["target"] for node in fault["nodes"]][:5], fault["nodes"][0].get("failureSummary"))
              for fault in found.response["violations"]]
    assert not faults, f"{where}: {faults}"
