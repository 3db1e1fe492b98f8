-- Nexmark q14. Calculation: a filter and scalar functions. The original counts letters by a user-defined function.
CREATE TABLE bid (auction BIGINT NOT NULL, bidder BIGINT NOT NULL, price BIGINT NOT NULL, channel VARCHAR, url VARCHAR,
    datetime TIMESTAMP NOT NULL LATENESS INTERVAL '4' SECOND, extra VARCHAR)
WITH ('connectors' = '[{"transport": {"name": "nexmark", "config": {"table": "bid", "options": {"events": 1000000}}}}]');

CREATE VIEW q14
WITH ('connectors' = '[{"transport": {"name": "file_output", "config": {"path": "${DATA_DIR}/out/q14.ndjson"}},
                        "format": {"name": "json"}}]')
AS SELECT auction, bidder, 0.908 * price AS price, CASE
           WHEN extract(HOUR FROM datetime) BETWEEN 8 AND 18 THEN 'dayTime'
           WHEN extract(HOUR FROM datetime) <= 6 OR extract(HOUR FROM datetime) >= 20 THEN 'nightTime'
           ELSE 'otherTime'
       END AS bidtimetype, datetime, extra, length(extra) - length(replace(extra, 'c', '')) AS c_counts
FROM bid
WHERE 0.908 * price > 1000000 AND 0.908 * price < 50000000;
