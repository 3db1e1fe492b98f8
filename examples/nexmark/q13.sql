-- Nexmark q13. Bounded side input: a join with a table that does not change.
CREATE TABLE bid (auction BIGINT NOT NULL, bidder BIGINT NOT NULL, price BIGINT NOT NULL, channel VARCHAR, url VARCHAR,
    datetime TIMESTAMP NOT NULL LATENESS INTERVAL '4' SECOND, extra VARCHAR)
WITH ('connectors' = '[{"transport": {"name": "nexmark", "config": {"table": "bid", "options": {"events": 1000000}}}}]');

CREATE TABLE side_input (id BIGINT NOT NULL PRIMARY KEY, value VARCHAR)
WITH ('connectors' = '[{"transport": {"name": "datagen", "config": {"plan": [{"limit": 10000}]}}}]');

CREATE VIEW q13
WITH ('connectors' = '[{"transport": {"name": "file_output", "config": {"path": "${DATA_DIR}/out/q13.ndjson"}},
                        "format": {"name": "json"}}]')
AS SELECT b.auction, b.bidder, b.price, b.datetime, s.value
FROM bid b JOIN side_input s ON b.auction % 10000 = s.id;
