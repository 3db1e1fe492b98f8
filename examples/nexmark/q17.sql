-- Nexmark q17. Auction statistics of a day.
CREATE TABLE bid (auction BIGINT NOT NULL, bidder BIGINT NOT NULL, price BIGINT NOT NULL, channel VARCHAR, url VARCHAR,
    datetime TIMESTAMP NOT NULL LATENESS INTERVAL '4' SECOND, extra VARCHAR)
WITH ('connectors' = '[{"transport": {"name": "nexmark", "config": {"table": "bid", "options": {"events": 1000000}}}}]');

CREATE VIEW q17
WITH ('connectors' = '[{"transport": {"name": "file_output", "config": {"path": "${DATA_DIR}/out/q17.ndjson"}},
                        "format": {"name": "json"}}]')
AS SELECT auction, to_char(date_trunc('day', datetime), '%Y-%m-%d') AS day, count(*) AS total_bids,
       count(*) FILTER (WHERE price < 10000) AS rank1_bids,
       count(*) FILTER (WHERE price >= 10000 AND price < 1000000) AS rank2_bids,
       count(*) FILTER (WHERE price >= 1000000) AS rank3_bids,
       min(price) AS min_price, max(price) AS max_price, avg(price) AS avg_price, sum(price) AS sum_price
FROM bid
GROUP BY date_trunc('day', datetime), auction;
