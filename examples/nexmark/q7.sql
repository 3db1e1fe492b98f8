-- Nexmark q7. Highest bid: that of each 10 seconds.
CREATE TABLE bid (auction BIGINT NOT NULL, bidder BIGINT NOT NULL, price BIGINT NOT NULL, channel VARCHAR, url VARCHAR,
    datetime TIMESTAMP NOT NULL LATENESS INTERVAL '4' SECOND, extra VARCHAR)
WITH ('connectors' = '[{"transport": {"name": "nexmark", "config": {"table": "bid", "options": {"events": 1000000}}}}]');

CREATE VIEW q7
WITH ('connectors' = '[{"transport": {"name": "file_output", "config": {"path": "${DATA_DIR}/out/q7.ndjson"}},
                        "format": {"name": "json"}}]')
AS SELECT b.auction, b.price, b.bidder, b.datetime, b.extra
FROM TUMBLE(TABLE bid, DESCRIPTOR(datetime), INTERVAL '10' SECOND) AS b
JOIN (
    SELECT max(price) AS price, window_start, window_end
    FROM TUMBLE(TABLE bid, DESCRIPTOR(datetime), INTERVAL '10' SECOND)
    GROUP BY window_start, window_end
) AS best ON b.window_start = best.window_start AND b.price = best.price;
