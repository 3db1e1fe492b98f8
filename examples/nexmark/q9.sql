-- Nexmark q9. Winning bids: the highest bid of each auction, the first of equal ones.
CREATE TABLE auction (id BIGINT NOT NULL, itemname VARCHAR, description VARCHAR, initialbid BIGINT, reserve BIGINT,
    datetime TIMESTAMP NOT NULL LATENESS INTERVAL '4' SECOND, expires TIMESTAMP NOT NULL, seller BIGINT NOT NULL, category BIGINT NOT NULL, extra VARCHAR)
WITH ('connectors' = '[{"transport": {"name": "nexmark", "config": {"table": "auction", "options": {"events": 1000000}}}}]');

CREATE TABLE bid (auction BIGINT NOT NULL, bidder BIGINT NOT NULL, price BIGINT NOT NULL, channel VARCHAR, url VARCHAR,
    datetime TIMESTAMP NOT NULL LATENESS INTERVAL '4' SECOND, extra VARCHAR)
WITH ('connectors' = '[{"transport": {"name": "nexmark", "config": {"table": "bid", "options": {"events": 1000000}}}}]');

CREATE VIEW q9
WITH ('connectors' = '[{"transport": {"name": "file_output", "config": {"path": "${DATA_DIR}/out/q9.ndjson"}},
                        "format": {"name": "json"}}]')
AS SELECT id, itemname, description, initialbid, reserve, opened, expires, seller, category, auction, bidder, price, datetime
FROM (
    SELECT a.id, a.itemname, a.description, a.initialbid, a.reserve, a.datetime AS opened, a.expires, a.seller, a.category,
           b.auction, b.bidder, b.price, b.datetime,
           row_number() OVER (PARTITION BY a.id ORDER BY b.price DESC, b.datetime, b.bidder) AS place
    FROM auction a JOIN bid b ON a.id = b.auction
    WHERE b.datetime BETWEEN a.datetime AND a.expires
) AS ranked
WHERE place <= 1;
