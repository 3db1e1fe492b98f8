-- Nexmark q6. Average selling price by seller: over the last ten auctions that each seller closed.
CREATE TABLE auction (id BIGINT NOT NULL, itemname VARCHAR, description VARCHAR, initialbid BIGINT, reserve BIGINT,
    datetime TIMESTAMP NOT NULL LATENESS INTERVAL '4' SECOND, expires TIMESTAMP NOT NULL, seller BIGINT NOT NULL, category BIGINT NOT NULL, extra VARCHAR)
WITH ('connectors' = '[{"transport": {"name": "nexmark", "config": {"table": "auction", "options": {"events": 1000000}}}}]');

CREATE TABLE bid (auction BIGINT NOT NULL, bidder BIGINT NOT NULL, price BIGINT NOT NULL, channel VARCHAR, url VARCHAR,
    datetime TIMESTAMP NOT NULL LATENESS INTERVAL '4' SECOND, extra VARCHAR)
WITH ('connectors' = '[{"transport": {"name": "nexmark", "config": {"table": "bid", "options": {"events": 1000000}}}}]');

CREATE VIEW q6
WITH ('connectors' = '[{"transport": {"name": "file_output", "config": {"path": "${DATA_DIR}/out/q6.ndjson"}},
                        "format": {"name": "json"}}]')
AS SELECT seller, id, avg(final) OVER (PARTITION BY seller ORDER BY datetime, id ROWS BETWEEN 9 PRECEDING AND CURRENT ROW) AS average
FROM (
    SELECT id, seller, final, datetime
    FROM (
        SELECT a.id, a.seller, b.price AS final, b.datetime,
               row_number() OVER (PARTITION BY a.id, a.seller ORDER BY b.price DESC, b.datetime) AS place
        FROM auction a JOIN bid b ON a.id = b.auction
        WHERE b.datetime BETWEEN a.datetime AND a.expires
    ) AS ranked
    WHERE place <= 1
) AS closed;
