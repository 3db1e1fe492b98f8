-- Nexmark q8. Monitor new users: who came and opened an auction within the same 10 seconds.
CREATE TABLE person (id BIGINT NOT NULL, name VARCHAR, emailaddress VARCHAR, creditcard VARCHAR, city VARCHAR, state VARCHAR,
    datetime TIMESTAMP NOT NULL LATENESS INTERVAL '4' SECOND, extra VARCHAR)
WITH ('connectors' = '[{"transport": {"name": "nexmark", "config": {"table": "person", "options": {"events": 1000000}}}}]');

CREATE TABLE auction (id BIGINT NOT NULL, itemname VARCHAR, description VARCHAR, initialbid BIGINT, reserve BIGINT,
    datetime TIMESTAMP NOT NULL LATENESS INTERVAL '4' SECOND, expires TIMESTAMP NOT NULL, seller BIGINT NOT NULL, category BIGINT NOT NULL, extra VARCHAR)
WITH ('connectors' = '[{"transport": {"name": "nexmark", "config": {"table": "auction", "options": {"events": 1000000}}}}]');

CREATE VIEW q8
WITH ('connectors' = '[{"transport": {"name": "file_output", "config": {"path": "${DATA_DIR}/out/q8.ndjson"}},
                        "format": {"name": "json"}}]')
AS SELECT p.id, p.name, p.window_start
FROM (
    SELECT id, name, window_start, window_end
    FROM TUMBLE(TABLE person, DESCRIPTOR(datetime), INTERVAL '10' SECOND)
    GROUP BY window_start, window_end, id, name
) AS p
JOIN (
    SELECT seller, window_start, window_end
    FROM TUMBLE(TABLE auction, DESCRIPTOR(datetime), INTERVAL '10' SECOND)
    GROUP BY window_start, window_end, seller
) AS a ON p.window_start = a.window_start AND p.window_end = a.window_end AND p.id = a.seller;
