-- Nexmark q10. Log to files: bids with the day and minute that partition them. Into one file: no output partitions its files yet.
CREATE TABLE bid (auction BIGINT NOT NULL, bidder BIGINT NOT NULL, price BIGINT NOT NULL, channel VARCHAR, url VARCHAR,
    datetime TIMESTAMP NOT NULL LATENESS INTERVAL '4' SECOND, extra VARCHAR)
WITH ('connectors' = '[{"transport": {"name": "nexmark", "config": {"table": "bid", "options": {"events": 1000000}}}}]');

CREATE VIEW q10
WITH ('connectors' = '[{"transport": {"name": "file_output", "config": {"path": "${DATA_DIR}/out/q10.ndjson"}},
                        "format": {"name": "json"}}]')
AS SELECT auction, bidder, price, datetime, extra, to_char(datetime, '%Y-%m-%d') AS day, to_char(datetime, '%H:%M') AS minute
FROM bid;
