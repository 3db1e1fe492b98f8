"""Checks the service against its OpenAPI document by schemathesis: requests made of the document, and the answers that it promises.
Argument: the service's address. BACKSTAY_SCHEMA_EXAMPLES: requests a route."""

import json
import os
import subprocess
import sys
import tempfile
import urllib.request

address = sys.argv[1]


def send(method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(address + path, data, method=method)) as answer:
        return answer.read()


# Something to ask: a pipeline that runs, and one that does not.
sql = """CREATE TABLE t (id BIGINT NOT NULL PRIMARY KEY, n INT) WITH ('connectors' =
    '[{"name": "c", "transport": {"name": "datagen", "config": {"plan": [{"limit": 10}]}}}]');
CREATE MATERIALIZED VIEW v WITH ('connectors' = '[{"name": "o", "transport": {"name": "null_output"}}]') AS SELECT count(*) AS c FROM t;"""
for name in ["running", "stopped"]:
    send("POST", "/v0/pipelines", {"name": name, "program_code": sql})
send("POST", "/v0/pipelines/running/start")

checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance"
# Logs and egress have no end, which schemathesis would wait for.
here = os.path.dirname(os.path.abspath(__file__))
done = subprocess.run([
    os.path.join(os.path.dirname(sys.executable), "schemathesis"), "--config-file", f"{here}/schemathesis.toml",
    "run", f"{address}/openapi.json",
    "--phases", "examples,coverage,fuzzing", "--checks", checks + ",unsupported_method,negative_data_rejection",
    "--max-examples", os.environ.get("BACKSTAY_SCHEMA_EXAMPLES", "15"), "--seed", "1",
    "--exclude-path-regex", "/(logs|egress/.*)$", "--request-timeout", "40",
    "--generation-database", ":memory:", "--no-color",
], cwd=tempfile.mkdtemp())
sys.exit(done.returncode)
