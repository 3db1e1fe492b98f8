-- Nexmark q3. Local item suggestion: a join of auctions and people.
CREATE TABLE person (id BIGINT NOT NULL, name VARCHAR, emailaddress VARCHAR, creditcard VARCHAR, city VARCHAR, state VARCHAR,
    datetime TIMESTAMP NOT NULL LATENESS INTERVAL '4' SECOND, extra VARCHAR)
WITH ('connectors' = '[{"transport": {"name": "nexmark", "config": {"table": "person", "options": {"events": 1000000}}}}]');

CREATE TABLE auction (id BIGINT NOT NULL, itemname VARCHAR, description VARCHAR, initialbid BIGINT, reserve BIGINT,
    datetime TIMESTAMP NOT NULL LATENESS INTERVAL '4' SECOND, expires TIMESTAMP NOT NULL, seller BIGINT NOT NULL, category BIGINT NOT NULL, extra VARCHAR)
WITH ('connectors' = '[{"transport": {"name": "nexmark", "config": {"table": "auction", "options": {"events": 1000000}}}}]');

CREATE VIEW q3
WITH ('connectors' = '[{"transport": {"name": "file_output", "config": {"path": "${DATA_DIR}/out/q3.ndjson"}},
                        "format": {"name": "json"}}]')
AS SELECT p.name, p.city, p.state, a.id
FROM auction a JOIN person p ON a.seller = p.id
WHERE a.category = 10 AND p.state IN ('OR', 'ID', 'CA');
