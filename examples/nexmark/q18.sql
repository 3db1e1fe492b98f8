-- Nexmark q18. Find last bid: of each bidder in each auction.
CREATE TABLE bid (auction BIGINT NOT NULL, bidder BIGINT NOT NULL, price BIGINT NOT NULL, channel VARCHAR, url VARCHAR,
    datetime TIMESTAMP NOT NULL LATENESS INTERVAL '4' SECOND, extra VARCHAR)
WITH ('connectors' = '[{"transport": {"name": "nexmark", "config": {"table": "bid", "options": {"events": 1000000}}}}]');

CREATE VIEW q18
WITH ('connectors' = '[{"transport": {"name": "file_output", "config": {"path": "${DATA_DIR}/out/q18.ndjson"}},
                        "format": {"name": "json"}}]')
AS SELECT auction, bidder, price, channel, url, datetime, extra
FROM (
    SELECT *, row_number() OVER (PARTITION BY bidder, auction ORDER BY datetime DESC, price, channel, url, extra) AS place
    FROM bid
) AS ranked
WHERE place <= 1;
