"""A service with a key, over TLS: the page asks for it, and keeps it for its tab only. Arguments: the service's address, its key."""

import sys

from playwright.sync_api import expect

from common import accessible, browser, fits

ADDRESS, KEY = sys.argv[1:]

# The certificate is of nobody whom the browser knows.
with browser(ADDRESS, viewport={"width": 360, "height": 740}, ignore_https_errors=True) as watched:
    page = watched.page
    # A browser tells of each answer of 401.
    watched.allowed = ["401"]
    watched.goto()
    key = page.get_by_label("API key")
    expect(key).to_be_focused()
    fits(page, "the question for the key")
    accessible(page, "the question for the key")
    for wrong, said in [("", "Enter the key."), ("schlüssel", "beyond ASCII"), ("not-the-key", "This is not the key.")]:
        key.fill(wrong)
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text(said)
        expect(page.get_by_role("button", name="New pipeline")).to_have_count(0)
    assert page.evaluate("sessionStorage.length") == 0
    watched.shot("key")
    key.fill(KEY)
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="New pipeline")).to_be_visible()
    watched.allowed = []
    page.reload()
    expect(page.get_by_role("button", name="New pipeline")).to_be_visible()
    # Changes are asked for too: by HTTP/2, where the host is in no header.
    ask = """async key => {
        const body = JSON.stringify({ program_code: "CREATE TABLE t (a INT);" });
        const headers = { authorization: `Bearer ${key}` };
        const answer = await fetch("/v0/validate_program", { method: "POST", headers, body });
        await answer.text();
        return answer.status;
    }"""
    assert page.evaluate(ask, KEY) == 200
    protocols = "performance.getEntriesByType('resource').map(entry => entry.nextHopProtocol)"
    page.wait_for_function(f"{protocols}.includes('h2')")
    # In no other place: another tab of the same browser does not have it, no cookie does.
    assert page.context.cookies() == []
    assert KEY not in str(page.evaluate("JSON.stringify(localStorage)"))
    other = page.context.new_page()
    other.goto(ADDRESS)
    expect(other.get_by_label("API key")).to_be_visible()
    other.close()
    page.get_by_role("button", name="Forget key").click()
    expect(page.get_by_label("API key")).to_be_visible()
    assert page.evaluate("sessionStorage.length") == 0
