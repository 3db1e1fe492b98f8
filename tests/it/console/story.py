"""The whole story, from a new pipeline to its end. Argument: the service's address."""

import os
import re
import signal
import sys

from playwright.sync_api import expect

from common import accessible, api, browser

ADDRESS = sys.argv[1]
SQL = """CREATE TABLE t (id BIGINT NOT NULL PRIMARY KEY, n INT) WITH ('connectors' = '[{
  "name": "made", "transport": {"name": "datagen", "config": {"plan": [{"limit": 50000000}]}}}]');
CREATE MATERIALIZED VIEW v WITH ('connectors' = '[{"name": "kept", "transport": {"name": "file_output",
  "config": {"path": "${DATA_DIR}/v.json"}}, "format": {"name": "json"}}]')
AS SELECT count(*) AS c, min(id) AS low, max(id) AS high, sum(id) AS s FROM t;
"""
WRONG = SQL.replace("max(id)", "max(idd)")


def is_right(page):
    """Asks for the view, whose one row says whether each of the generator's rows was counted once. The count."""
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.get_by_role("region", name="Result")).to_contain_text("1 row,")
    row = dict(zip(page.locator(".results th").all_inner_texts(), page.locator(".results td").all_inner_texts()))
    count, low, high, total = (int(row[column]) for column in ("c", "low", "high", "s"))
    assert (low, high, total) == (0, count - 1, count * (count - 1) // 2), row
    return count


def state(page, word):
    expect(page.locator("h1 + .badge")).to_have_text(word, timeout=60_000)


def tab(page, name):
    page.get_by_role("navigation").get_by_role("link", name=re.compile(f"^{name}")).click()


with browser(ADDRESS, viewport={"width": 1280, "height": 900}) as watched:
    page = watched.page
    # A browser tells of each answer that is an error: a pipeline whose process has just ended is asked before that is seen.
    watched.allowed.append("status of 503")
    watched.goto()
    expect(page.get_by_role("heading", name="No pipelines yet")).to_be_visible()
    watched.shot("empty")
    page.get_by_role("button", name="New pipeline").click()
    page.get_by_label("Name").fill("not a name")
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("alert")).to_contain_text("letters, digits")
    page.get_by_label("Name").fill("story")
    watched.shot("create")
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("heading", name="story")).to_be_visible()

    # An error stands where it is, in the list with its place, and goes when it is mended.
    editor = page.get_by_label("SQL program")
    expect(page.locator("#compiled")).to_have_text("compiles")
    editor.fill(WRONG)
    expect(page.locator(".marks u")).to_have_text("idd")
    expect(page.locator(".marks i")).to_contain_text("there is no column `idd`")
    expect(page.locator("#compiled")).to_have_text("1 error")
    watched.shot("error-in-place")
    page.get_by_role("button", name="5:46").click()
    assert page.evaluate("document.activeElement.value.slice(document.activeElement.selectionStart).startsWith('idd)')")
    page.keyboard.press("Control+s")
    expect(page.get_by_text("The program does not compile: 1 error.")).to_be_visible()
    expect(page.get_by_role("button", name="Start", exact=True)).to_be_disabled()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Delete")
    expect(page.locator("#compiled")).to_have_text("compiles")
    tab(page, "Overview")
    expect(page.get_by_text("Nothing yet: start the pipeline.")).to_be_visible()
    tab(page, "Program •")
    assert editor.input_value() == SQL, "what was typed is kept"
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("The program does not compile")).to_have_count(0)

    # The gear's dialog: storage and fault tolerance, with checks.
    page.get_by_role("button", name="Settings").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("None", exact=True).click()
    dialog.get_by_label("Keep state on disk").uncheck()
    expect(dialog.get_by_role("radio", name="Exactly once")).to_be_disabled()
    expect(dialog.get_by_text("The others need storage.")).to_be_visible()
    dialog.get_by_label("Keep state on disk").check()
    dialog.get_by_role("radio", name="Exactly once").check()
    dialog.get_by_label("Every (seconds)").fill("0")
    dialog.get_by_label("Log", exact=True).fill("lots")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_role("alert")).to_contain_text("size such as 256 MiB")
    dialog.get_by_label("Log", exact=True).fill("64 MiB")
    expect(dialog.get_by_text("A whole number from 1 to 3600.")).to_be_visible()
    watched.shot("settings")
    dialog.get_by_label("Every (seconds)").fill("2")
    dialog.get_by_label("Most rows in a step").fill("200")
    dialog.get_by_label("Changes kept of a view").fill("1 MiB")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog).to_have_count(0)
    config = api(ADDRESS, "/v0/pipelines/story")["runtime_config"]
    assert config["storage"]["max_log_bytes"] == 64 << 20, config
    assert config["fault_tolerance"] == {"model": "exactly_once", "checkpoint_interval_secs": 2}, config
    assert config["max_rows_per_step"] == 200, config
    assert config["http"] == {"egress_max_bytes": 1 << 20}, config

    page.get_by_role("button", name="Start", exact=True).click()
    state(page, "Running")
    tab(page, "Overview")
    rate = page.locator(".figures dd").first
    expect(rate).to_have_text(re.compile("[1-9]"))
    expect(page.locator(".chart canvas")).to_have_count(6)
    expect(page.locator("[data-kind=checkpoint]").first).to_be_visible()
    expect(page.locator(".timeline .span.running").first).to_be_visible()
    tab(page, "Query")
    page.get_by_label("SQL query").fill("SELECT * FROM v")
    before = is_right(page)

    # A crash: seen on the time line with its replay, and nothing is lost or counted twice.
    tab(page, "Overview")
    killed = api(ADDRESS, "/v0/pipelines/story/stats")["backstay"]["pid"]
    os.kill(killed, signal.SIGKILL)
    expect(page.locator("[data-kind=crash]")).to_contain_text("SIGKILL")
    expect(page.locator("[data-kind=replay]")).to_contain_text("run again from the log", timeout=60_000)
    expect(page.locator(".mark.crash")).to_have_count(1)
    expect(page.locator(".mark.replay")).to_have_count(1)
    expect(page.get_by_role("region", name="Time line")).to_contain_text("1 crash, 1 replay")
    state(page, "Running")
    expect(rate).to_have_text(re.compile("[1-9]"))
    watched.shot("crash")
    accessible(page, "the overview after a crash")
    tab(page, "Query")
    assert page.get_by_label("SQL query").input_value() == "SELECT * FROM v", "the query is kept"
    assert is_right(page) > before
    watched.allowed.append("status of 400")
    page.get_by_label("SQL query").fill("SELECT nope FROM v")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("alert")).to_contain_text("nope")
    watched.allowed.remove("status of 400")
    page.get_by_label("SQL query").fill("SELECT 9007199254740993 AS big, CAST(NULL AS INT) AS nothing, '<b>x</b>' AS text FROM v")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".results td")).to_have_text(["9007199254740993", "NULL", "<b>x</b>"])
    watched.shot("query")

    tab(page, "Circuit")
    expect(page.locator(".circuit .node").first).to_contain_text("table")
    page.get_by_role("button", name="Table").click()
    expect(page.get_by_role("row").nth(1)).to_contain_text("table t")
    tab(page, "Connectors")
    expect(page.get_by_role("region", name="Inputs")).to_contain_text(re.compile(r"t\.made.*healthy.* at [1-9]", re.S))
    expect(page.get_by_role("region", name="Outputs")).to_contain_text(re.compile(r"v\.kept.*healthy", re.S))
    tab(page, "Logs")
    expect(page.get_by_role("log")).to_contain_text("resumed at step")
    page.get_by_label("Show lines with").fill("resumed at")
    expect(page.get_by_role("log")).not_to_contain_text("pipeline ")

    page.get_by_role("button", name="Checkpoint").click()
    expect(page.get_by_text("The checkpoint is durable.")).to_be_visible()
    page.get_by_role("button", name="Pause").click()
    state(page, "Paused")
    page.get_by_role("button", name="Resume").click()
    state(page, "Running")

    # Settings of a running pipeline: stopped for them, and started again as it was.
    page.get_by_role("button", name="Settings").click()
    dialog.get_by_label("Workers").fill("1")
    dialog.get_by_role("button", name="Stop, save and start again").click()
    expect(dialog).to_have_count(0, timeout=60_000)
    state(page, "Running")
    assert api(ADDRESS, "/v0/pipelines/story")["runtime_config"]["workers"] == 1

    page.get_by_role("button", name="Stop", exact=True).click()
    state(page, "Stopped")
    tab(page, "Program")
    editor.fill(SQL.replace("LIMIT", "limit") + "-- more\n")
    expect(page.get_by_text("once the storage is cleared")).to_be_visible()
    expect(page.get_by_role("button", name="Save")).to_be_disabled()
    page.get_by_role("button", name="Clear storage …").first.click()
    page.get_by_role("dialog").get_by_role("button", name="Clear storage").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Saved.", exact=True)).to_be_visible()
    page.get_by_label("More actions").click()
    page.get_by_role("button", name="Delete …").click()
    watched.deletes("story")
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", name="No pipelines yet")).to_be_visible()
    assert api(ADDRESS, "/v0/pipelines") == []
