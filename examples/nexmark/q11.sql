-- Nexmark q11. User sessions: bids of a bidder that follow each other within 10 seconds. With window functions, as there is no SESSION yet.
CREATE TABLE bid (auction BIGINT NOT NULL, bidder BIGINT NOT NULL, price BIGINT NOT NULL, channel VARCHAR, url VARCHAR,
    datetime TIMESTAMP NOT NULL LATENESS INTERVAL '4' SECOND, extra VARCHAR)
WITH ('connectors' = '[{"transport": {"name": "nexmark", "config": {"table": "bid", "options": {"events": 1000000}}}}]');

CREATE VIEW q11
WITH ('connectors' = '[{"transport": {"name": "file_output", "config": {"path": "${DATA_DIR}/out/q11.ndjson"}},
                        "format": {"name": "json"}}]')
AS SELECT bidder, count(*) AS bids, min(datetime) AS window_start, max(datetime) + INTERVAL '10' SECOND AS window_end
FROM (
    SELECT bidder, datetime, sum(is_first) OVER (PARTITION BY bidder ORDER BY datetime) AS session
    FROM (
        SELECT bidder, datetime, CASE
            WHEN datetime - lag(datetime) OVER (PARTITION BY bidder ORDER BY datetime) < INTERVAL '10' SECOND THEN 0
            ELSE 1
        END AS is_first
        FROM bid
    ) AS marked
) AS numbered
GROUP BY bidder, session;
