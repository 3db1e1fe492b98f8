"""Drives the service by Feldera's own Python client, unmodified. Argument: the service's address."""

import sys

from feldera import FelderaClient, PipelineBuilder
from feldera.enums import PipelineStatus
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

pipeline.pause()
assert pipeline.status() == PipelineStatus.PAUSED
pipeline.resume()
assert pipeline.status() == PipelineStatus.RUNNING

pipeline.stop(force=False)
pipeline.start()
assert list(pipeline.query("SELECT count(*) AS n FROM t")) == [{"n": 1000}]
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
