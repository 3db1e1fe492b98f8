-- Nexmark q5. Hot items: which auctions have most bids in the last 10 seconds, every 2 seconds.
CREATE TABLE bid (auction BIGINT NOT NULL, bidder BIGINT NOT NULL, price BIGINT NOT NULL, channel VARCHAR, url VARCHAR,
    datetime TIMESTAMP NOT NULL LATENESS INTERVAL '4' SECOND, extra VARCHAR)
WITH ('connectors' = '[{"transport": {"name": "nexmark", "config": {"table": "bid", "options": {"events": 1000000}}}}]');

CREATE VIEW q5
WITH ('connectors' = '[{"transport": {"name": "file_output", "config": {"path": "${DATA_DIR}/out/q5.ndjson"}},
                        "format": {"name": "json"}}]')
AS SELECT counted.auction, counted.num, counted.window_start, counted.window_end
FROM (
    SELECT auction, count(*) AS num, window_start, window_end
    FROM HOP(TABLE bid, DESCRIPTOR(datetime), INTERVAL '2' SECOND, INTERVAL '10' SECOND)
    GROUP BY auction, window_start, window_end
) AS counted
JOIN (
    SELECT max(num) AS most, window_start, window_end
    FROM (
        SELECT auction, count(*) AS num, window_start, window_end
        FROM HOP(TABLE bid, DESCRIPTOR(datetime), INTERVAL '2' SECOND, INTERVAL '10' SECOND)
        GROUP BY auction, window_start, window_end
    ) AS all_counted
    GROUP BY window_start, window_end
) AS best ON counted.window_start = best.window_start AND counted.window_end = best.window_end AND counted.num >= best.most;
