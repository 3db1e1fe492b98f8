"""Drives the service by Feldera's own Python client, unmodified. Argument: the service's address."""

import sys
import time

import pandas

from feldera import FelderaClient, PipelineBuilder
from feldera.enums import PipelineStatus
from feldera.rest.errors import FelderaAPIError
from feldera.runtime_config import RuntimeConfig

SQL = """CREATE TABLE t (id BIGINT NOT NULL PRIMARY KEY, n INT) WITH ('connectors' =
    '[{"name": "g", "transport": {"name": "datagen", "config": {"plan": [{"limit": 1000}]}}}]');
CREATE MATERIALIZED VIEW v AS SELECT n, count(*) AS c FROM t GROUP BY n;"""

client = FelderaClient(sys.argv[1])
config = RuntimeConfig(storage=True, workers=2)
pipeline = PipelineBuilder(client, "first", SQL, runtime_config=config).create_or_replace()
assert pipeline.status() == PipelineStatus.STOPPED

pipeline.start()
assert pipeline.status() == PipelineStatus.RUNNING
pipeline.wait_for_completion()
assert list(pipeline.query("SELECT count(*) AS n, sum(c) AS s FROM v")) == [{"n": 1000, "s": 1000}]
assert pipeline.stats().global_metrics.total_processed_records == 1000
pipeline.checkpoint(wait=True)

pipeline.pause_input_connector("t", "g")
for _ in range(100):
    if client.input_connector_stats("first", "t", "g")["paused"]:
        break
    time.sleep(0.1)
else:
    raise AssertionError("a connector that was paused does not say so")
pipeline.start_input_connector("t", "g")

pipeline.pause()
assert pipeline.status() == PipelineStatus.PAUSED
pipeline.resume()
assert pipeline.status() == PipelineStatus.RUNNING

pipeline.stop(force=False)
pipeline.start()
assert list(pipeline.query("SELECT count(*) AS n FROM t")) == [{"n": 1000}]

pushed = """CREATE TABLE p (id BIGINT NOT NULL PRIMARY KEY, n INT, name VARCHAR);
CREATE MATERIALIZED VIEW named AS SELECT name, sum(n) AS s FROM p GROUP BY name;"""
pushing = PipelineBuilder(client, "pushed", pushed, runtime_config=config).create_or_replace()
pushing.start()
listener = pushing.listen("named")
pushing.input_json("p", {"id": 1, "n": 2, "name": "a"})
pushing.input_json("p", [{"insert": {"id": 2, "n": 3, "name": "b"}}, {"insert": {"id": 1, "n": 5, "name": "a"}}],
                   update_format="insert_delete")
pushing.input_pandas("p", pandas.DataFrame({"id": [3, 4], "n": [1, 1], "name": ["b", "c"]}))
pushing.wait_for_completion()
rows = {row["name"]: row["s"] for row in pushing.query("SELECT * FROM named")}
assert rows == {"a": 5, "b": 4, "c": 1}, rows
heard = {}
for _ in range(100):
    for row in listener.to_dict():
        heard[(row["name"], row["s"])] = heard.get((row["name"], row["s"]), 0) + row["insert_delete"]
    if {key for key, count in heard.items() if count} == {("a", 5), ("b", 4), ("c", 1)}:
        break
    time.sleep(0.1)
else:
    raise AssertionError(heard)
try:
    pushing.input_json("p", {"id": "x"})
except FelderaAPIError as error:
    assert error.error_code == "ParseErrors", error
else:
    raise AssertionError("a row that does not parse was taken")
pushing.stop(force=True)
pushing.clear_storage()
pushing.delete()
pipeline.stop(force=True)
pipeline.clear_storage()
pipeline.delete()

try:
    PipelineBuilder(client, "bad", "CREATE VIEW v AS SELECT x FROM nope;").create_or_replace()
except RuntimeError as error:
    assert "there is no table or view `nope`" in str(error), error
else:
    raise AssertionError("a wrong program compiled")
print("Feldera's Python client: ok")
