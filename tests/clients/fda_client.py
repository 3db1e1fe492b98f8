"""Drives the service by Feldera's command `fda`, unmodified. Argument: the service's address."""

import json
import os
import subprocess
import sys
import tempfile

SQL = """CREATE TABLE t (id BIGINT NOT NULL PRIMARY KEY, n INT) WITH ('connectors' =
    '[{"name": "g", "transport": {"name": "datagen", "config": {"plan": [{"limit": 1000}]}}}]');
CREATE MATERIALIZED VIEW v AS SELECT count(*) AS c, sum(id) AS s FROM t;"""


def fda(*args, fails=False, stdin=None):
    command = ["fda", "--host", sys.argv[1], *args]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120)
    said = f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}"
    assert (done.returncode != 0) == fails, said
    return done.stdout + (done.stderr if fails else "")


def config(key=None):
    shown = json.loads(fda("--format", "json", "config", "p"))
    return shown if key is None else shown[key]


with tempfile.TemporaryDirectory() as folder:
    program = os.path.join(folder, "p.sql")
    with open(program, "w") as file:
        file.write("CREATE TABLE u (a INT);")
    fda("create", "p", program, "--tag", "one")
    assert "p" in fda("pipelines")
    with open(program, "w") as file:
        file.write(SQL)
    fda("program", "set", "p", program)
    assert fda("program", "get", "p").strip() == SQL
    fda("create", "q", "-s", stdin=SQL)

fda("set-config", "p", "storage", "true")
fda("set-config", "p", "fault_tolerance", "true")
fda("set-config", "p", "workers", "2")
fda("set-config", "p", "checkpoint_interval", "5")
assert config("workers") == 2, config()
assert config("fault_tolerance") == {"model": "exactly_once", "checkpoint_interval_secs": 5}, config()
assert config("storage") is not None, config()
assert "not supported" in fda("set-config", "p", "memory_mb_max", "100", fails=True)
assert fda("tags", "p").strip() == "one"
fda("set-tags", "p", "two,three")
assert fda("tags", "p").strip() == "three,two", fda("tags", "p")

fda("start", "p")
assert "Running" in fda("status", "p")
assert "exactly once" in fda("logs", "p")
fda("pause", "p")
assert "Paused" in fda("status", "p")
fda("resume", "p")

for _ in range(100):
    if "1000" in fda("query", "p", "SELECT c FROM v"):
        break
assert json.loads(fda("--format", "json", "query", "p", "SELECT c, s FROM v")) == {"c": 1000, "s": 499500}
assert "499500" in fda("exec", "p", "-s", stdin="SELECT s FROM v")
assert "there is no" in fda("query", "p", "SELECT x FROM nope", fails=True)

stats = json.loads(fda("--format", "json", "stats", "p"))
assert stats["global_metrics"]["total_processed_records"] == 1000, stats
assert "1000" in fda("stats", "p")
assert "backstay_steps_total" in fda("--format", "prometheus", "metrics", "p")
connector = json.loads(fda("--format", "json", "connector", "p", "t", "g", "stats"))
assert connector["metrics"]["total_records"] == 1000, connector
fda("connector", "p", "t", "nope", "stats", fails=True)
fda("checkpoint", "p")

fda("stop", "--checkpoint", "p")
assert "Stopped" in fda("status", "p")
fda("restart", "p")
assert "1000" in fda("query", "p", "SELECT c FROM v")
fda("stop", "p")
assert "clear its storage" in fda("delete", "p", fails=True)
fda("clear", "p")
fda("delete", "p")
fda("delete", "--force", "q")
assert 'there is no pipeline "p"' in fda("status", "p", fails=True)
print("fda: ok")
