-- Nexmark q4. Average price for a category: the winning bid of each auction, averaged.
CREATE TABLE auction (id BIGINT NOT NULL, itemname VARCHAR, description VARCHAR, initialbid BIGINT, reserve BIGINT,
    datetime TIMESTAMP NOT NULL LATENESS INTERVAL '4' SECOND, expires TIMESTAMP NOT NULL, seller BIGINT NOT NULL, category BIGINT NOT NULL, extra VARCHAR)
WITH ('connectors' = '[{"transport": {"name": "nexmark", "config": {"table": "auction", "options": {"events": 1000000}}}}]');

CREATE TABLE bid (auction BIGINT NOT NULL, bidder BIGINT NOT NULL, price BIGINT NOT NULL, channel VARCHAR, url VARCHAR,
    datetime TIMESTAMP NOT NULL LATENESS INTERVAL '4' SECOND, extra VARCHAR)
WITH ('connectors' = '[{"transport": {"name": "nexmark", "config": {"table": "bid", "options": {"events": 1000000}}}}]');

CREATE VIEW q4
WITH ('connectors' = '[{"transport": {"name": "file_output", "config": {"path": "${DATA_DIR}/out/q4.ndjson"}},
                        "format": {"name": "json"}}]')
AS SELECT category, avg(final) AS average
FROM (
    SELECT a.id, a.category, max(b.price) AS final
    FROM auction a JOIN bid b ON a.id = b.auction
    WHERE b.datetime BETWEEN a.datetime AND a.expires
    GROUP BY a.id, a.category
) AS closed
GROUP BY category;
