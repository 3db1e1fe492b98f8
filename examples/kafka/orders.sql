-- Kafka to SQL to Kafka, exactly once. README.md beside this file says how to run it.
CREATE TABLE orders (id BIGINT NOT NULL, customer BIGINT NOT NULL, amount BIGINT NOT NULL) WITH ('connectors' = '[{
  "name": "orders", "transport": {"name": "kafka_input", "config": {"bootstrap.servers": "${env:KAFKA}", "topic": "orders"}},
  "format": {"name": "json", "config": {"update_format": "raw"}}}]');

CREATE TABLE customers (id BIGINT NOT NULL PRIMARY KEY, city VARCHAR NOT NULL) WITH ('connectors' = '[{
  "name": "customers", "transport": {"name": "kafka_input", "config": {"bootstrap.servers": "${env:KAFKA}", "topic": "customers"}},
  "format": {"name": "json", "config": {"update_format": "insert_delete"}}}]');

-- One row a city: an upsert topic, whose last message of each key is the view.
CREATE VIEW totals WITH ('connectors' = '[{
  "name": "totals", "transport": {"name": "kafka_output", "config": {"bootstrap.servers": "${env:KAFKA}", "topic": "totals"}},
  "format": {"name": "json", "config": {"update_format": "upsert", "key_fields": ["city"]}}}]')
AS SELECT c.city, count(*) AS n, sum(o.amount) AS total FROM orders o JOIN customers c ON o.customer = c.id GROUP BY c.city;
