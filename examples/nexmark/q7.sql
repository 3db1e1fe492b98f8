-- Nexmark q7. Highest bid: that of each 10 seconds.
CREATE TABLE bid (auction BIGINT NOT NULL, bidder BIGINT NOT NULL, price BIGINT NOT NULL, channel VARCHAR, url VARCHAR,
    datetime TIMESTAMP NOT NULL, extra VARCHAR)
WITH ('connectors' = '[{"transport": {"name": "nexmark", "config": {"table": "bid", "options": {"events": 1000000}}}}]');

CREATE VIEW q7
WITH ('connectors' = '[{"transport": {"name": "file_output", "config": {"path": "${DATA_DIR}/out/q7.ndjson"}},
                        "format": {"name": "json"}}]')
AS SELECT b.auction, b.price, b.bidder, b.datetime, b.extra
FROM bid b
JOIN (
    SELECT max(price) AS price, window_start, window_end
    FROM TUMBLE(TABLE bid, DESCRIPTOR(datetime), INTERVAL '10' SECOND)
    GROUP BY window_start, window_end
) AS best ON b.price = best.price
WHERE b.datetime >= best.window_start AND b.datetime < best.window_end;
