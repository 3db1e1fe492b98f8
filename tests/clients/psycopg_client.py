"""Reads views by psycopg, unmodified. Arguments: the service's address and that of its PostgreSQL protocol."""

import datetime
import decimal
import json
import sys
import time
import urllib.request

import psycopg
from psycopg.rows import dict_row

ADDRESS, POSTGRES = sys.argv[1:]
HOST, PORT = POSTGRES.rsplit(":", 1)
SQL = """CREATE TABLE t (id BIGINT NOT NULL PRIMARY KEY, n INT, name VARCHAR, price DECIMAL(10, 2), at TIMESTAMP, day DATE, f DOUBLE, ok BOOLEAN,
    raw VARBINARY) WITH ('materialized' = 'true');
CREATE MATERIALIZED VIEW totals AS SELECT name, count(*) AS c, sum(price) AS p, array_agg(id) AS ids FROM t GROUP BY name;"""
ROWS = [
    {"id": 1, "n": 10, "name": "a", "price": "1.50", "at": "2024-05-01 12:00:00.25", "day": "2024-05-01", "f": 0.1, "ok": True, "raw": "00ff"},
    {"id": 2, "n": None, "name": "it's", "price": None, "at": None, "day": None, "f": None, "ok": None, "raw": None},
]
FIRST = (1, 10, "a", decimal.Decimal("1.50"), datetime.datetime(2024, 5, 1, 12, 0, 0, 250000), datetime.date(2024, 5, 1), 0.1, True, b"\x00\xff")


def send(method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(ADDRESS + path, data, headers, method=method)) as answer:
        return json.loads(answer.read() or "null")


def until(what, holds):
    for _ in range(600):
        if holds():
            return
        time.sleep(0.1)
    raise AssertionError(f"never: {what}")


send("POST", "/v0/pipelines", {"name": "p", "program_code": SQL})
until("compiled", lambda: send("GET", "/v0/pipelines/p")["program_status"] == "Success")
send("POST", "/v0/pipelines/p/start")
until("running", lambda: send("GET", "/v0/pipelines/p")["deployment_status"] == "Running")
send("POST", "/v0/pipelines/p/ingress/t?format=json&array=true&update_format=raw", ROWS)

with psycopg.connect(host=HOST, port=PORT, user="anyone", dbname="p", password="") as connection:
    until("the rows", lambda: connection.execute("SELECT count(*) FROM t").fetchone() == (2,))
    # Parameters, and values as text and as PostgreSQL's bytes.
    for binary in (False, True):
        with connection.cursor(binary=binary) as cursor:
            rows = cursor.execute("SELECT * FROM t WHERE id = %s", (1,)).fetchall()
            assert rows == [FIRST], rows
            rows = cursor.execute("SELECT * FROM t WHERE name = %s", ("it's",)).fetchall()
            assert rows == [(2, None, "it's", *[None] * 6)], rows
            rows = cursor.execute("SELECT name, c, p, ids FROM totals ORDER BY name").fetchall()
            assert rows == [("a", 1, decimal.Decimal("1.50"), [1]), ("it's", 1, None, [2])], rows
            for column, value in zip(("n", "price", "at", "day", "f", "ok"), FIRST[1:2] + FIRST[3:8]):
                found = cursor.execute(f"SELECT id FROM t WHERE {column} = %s", (value,)).fetchall()
                assert found == [(1,)], (column, found)
    # A statement that it prepares by itself after a few turns.
    for turn in range(10):
        assert connection.execute("SELECT n FROM t WHERE id = %s", (turn,), prepare=True).fetchall() == ([(10,)] if turn == 1 else [(None,)] if turn == 2 else [])
    # Names of columns; several statements under way at once; an error, and on.
    with connection.cursor(row_factory=dict_row) as cursor:
        assert cursor.execute("SELECT name, c FROM totals WHERE c = 1 ORDER BY name LIMIT 1").fetchone() == {"name": "a", "c": 1}
    with connection.pipeline():
        cursors = [connection.execute("SELECT id FROM t WHERE id = %s", (id,)) for id in (1, 2, 3)]
        assert [cursor.fetchall() for cursor in cursors] == [[(1,)], [(2,)], []]
    try:
        connection.execute("SELECT nam FROM t")
        raise AssertionError("there is no such column")
    except psycopg.Error as error:
        assert "column `nam`" in str(error), error
        connection.rollback()
    assert connection.execute("SELECT count(*) FROM t").fetchone() == (2,)
print("psycopg", psycopg.__version__)
