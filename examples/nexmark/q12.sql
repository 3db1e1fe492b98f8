-- Nexmark q12. Windows of a bidder: bids in each 10 seconds. By the bids' own time; the original's is the clock of processing.
CREATE TABLE bid (auction BIGINT NOT NULL, bidder BIGINT NOT NULL, price BIGINT NOT NULL, channel VARCHAR, url VARCHAR,
    datetime TIMESTAMP NOT NULL LATENESS INTERVAL '4' SECOND, extra VARCHAR)
WITH ('connectors' = '[{"transport": {"name": "nexmark", "config": {"table": "bid", "options": {"events": 1000000}}}}]');

CREATE VIEW q12
WITH ('connectors' = '[{"transport": {"name": "file_output", "config": {"path": "${DATA_DIR}/out/q12.ndjson"}},
                        "format": {"name": "json"}}]')
AS SELECT bidder, count(*) AS bids, window_start, window_end
FROM TUMBLE(TABLE bid, DESCRIPTOR(datetime), INTERVAL '10' SECOND)
GROUP BY bidder, window_start, window_end;
