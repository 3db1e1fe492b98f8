"""Phones, dark, keyboards, assistive technology, and text that looks like HTML. Arguments: the service's address, which has the pipeline
`running`, and another's name, whose program is wrong."""

import sys

from playwright.sync_api import expect

from common import accessible, api, browser, fits

ADDRESS, LONG = sys.argv[1:]
TABS = ["overview", "program", "circuit", "connectors", "query", "logs"]
PAGES = [""] + [f"pipelines/{name}/{tab}" for name in ("running", LONG) for tab in TABS] + ["pipelines/nobody/overview"]


def settle(page):
    """Waits until a page has its data."""
    expect(page.locator("main h1, main h2").first).to_be_visible()
    expect(page.get_by_text("Loading")).to_have_count(0)
    expect(page.get_by_text("Asking …")).to_have_count(0)


def looked_at(watched, kind):
    page = watched.page
    for route in PAGES:
        watched.allowed = ["404"] if "nobody" in route else []
        watched.goto(route)
        settle(page)
        where = f"{route or 'list'}, {kind}"
        if route == "pipelines/running/query":
            page.get_by_role("button", name="Run", exact=True).click()
            expect(page.get_by_role("region", name="Result")).to_be_visible()
        if route == "pipelines/running/circuit":
            page.get_by_role("button", name="Table").click()
            fits(page, where)
            accessible(page, f"{where}, as a table")
            page.get_by_role("button", name="Graph").click()
        watched.shot(f"{kind}-{(route or 'list').replace(LONG, 'long').replace('/', '-')}")
        fits(page, where)
        accessible(page, where)
        assert page.locator("main :is(img[src='x'], script, main i i)").count() == 0, where
    watched.goto()
    page.get_by_role("button", name="New pipeline").click()
    fits(page, f"new pipeline, {kind}")
    accessible(page, f"new pipeline, {kind}")
    page.keyboard.press("Escape")
    watched.goto("pipelines/running/overview")
    page.get_by_role("button", name="Settings").click()
    watched.shot(f"{kind}-settings")
    fits(page, f"settings, {kind}")
    accessible(page, f"settings, {kind}")
    page.keyboard.press("Escape")
    page.get_by_label("More actions").click()
    fits(page, f"menu, {kind}")


DESK, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}
with browser(ADDRESS, viewport=DESK) as watched:
    looked_at(watched, "light")
with browser(ADDRESS, viewport=PHONE, has_touch=True, color_scheme="dark") as watched:
    looked_at(watched, "phone-dark")

# The theme: the system's, or the one that is chosen.
with browser(ADDRESS, color_scheme="dark") as watched:
    page, body = watched.page, watched.page.locator("body")
    watched.goto()
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button", name="Light").click()
    expect(body).not_to_have_css("background-color", dark)
    page.reload()
    expect(page.get_by_role("button", name="Light")).to_have_attribute("aria-pressed", "true")
    expect(body).not_to_have_css("background-color", dark)
    page.get_by_role("button", name="Dark").click()
    expect(body).to_have_css("background-color", dark)

# By keyboard only: a pipeline is made, written, and its settings are looked at.
with browser(ADDRESS, viewport=DESK) as watched:
    page, press = watched.page, watched.page.keyboard.press

    def tab_to(what, most=60):
        for _ in range(most):
            press("Tab")
            if what.evaluate_all("all => all.some((one) => one === document.activeElement)"):
                return
        raise AssertionError(f"Tab does not come to {what}")

    watched.goto()
    expect(page.get_by_role("link", name="running")).to_be_visible()
    press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    press("Enter")
    expect(page.get_by_role("main")).to_be_focused()
    tab_to(page.get_by_role("button", name="New pipeline"))
    press("Enter")
    expect(page.get_by_label("Name")).to_be_focused()
    page.keyboard.type("typed")
    press("Enter")
    expect(page.get_by_role("heading", name="typed")).to_be_visible()
    expect(page.get_by_role("main")).to_be_focused()
    tab_to(page.get_by_label("SQL program"))
    press("Control+a")
    page.keyboard.type("CREATE TABLE x (")
    press("Enter")
    press("Tab")
    page.keyboard.type("a INT);")
    press("Control+s")
    expect(page.get_by_text("Saved.")).to_be_visible()
    assert api(ADDRESS, "/v0/pipelines/typed")["program_code"] == "CREATE TABLE x (\n  a INT);"
    press("Escape")
    press("Tab")
    expect(page.get_by_label("SQL program")).not_to_be_focused()
    tab_to(page.get_by_role("button", name="Settings"))
    press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_role("button", name="Settings")).to_be_focused()
    press("Tab")
    press("Enter")
    tab_to(page.get_by_role("button", name="Delete …"))
    press("Escape")
    expect(page.get_by_role("button", name="Delete …")).not_to_be_visible()
    press("Enter")
    tab_to(page.get_by_role("button", name="Delete …"))
    press("Enter")
    tab_to(page.get_by_role("dialog").get_by_role("button", name="Delete"))
    watched.deletes("typed")
    press("Enter")
    expect(page.get_by_role("link", name="typed")).to_have_count(0)
    expect(page.get_by_role("link", name="running")).to_be_visible()
