-- Nexmark q11. User sessions: bids of a bidder that follow each other within 10 seconds.
CREATE TABLE bid (auction BIGINT NOT NULL, bidder BIGINT NOT NULL, price BIGINT NOT NULL, channel VARCHAR, url VARCHAR,
    datetime TIMESTAMP NOT NULL LATENESS INTERVAL '4' SECOND, extra VARCHAR)
WITH ('connectors' = '[{"transport": {"name": "nexmark", "config": {"table": "bid", "options": {"events": 1000000}}}}]');

CREATE VIEW q11
WITH ('connectors' = '[{"transport": {"name": "file_output", "config": {"path": "${DATA_DIR}/out/q11.ndjson"}},
                        "format": {"name": "json"}}]')
AS SELECT bidder, count(*) AS bids, window_start, window_end
FROM SESSION(TABLE bid PARTITION BY bidder, DESCRIPTOR(datetime), INTERVAL '10' SECOND)
GROUP BY bidder, window_start, window_end;
