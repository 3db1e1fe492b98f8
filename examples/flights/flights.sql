-- All flights that left New York City in 2013 (nycflights13, CC0), joined with airlines, airports, planes and weather.

CREATE TABLE airlines (
    carrier VARCHAR NOT NULL PRIMARY KEY,
    name VARCHAR NOT NULL
) WITH ('connectors' = '[{
    "transport": {"name": "file_input", "config": {"path": "data/airlines.csv"}},
    "format": {"name": "csv"}
}]');

CREATE TABLE airports (
    faa VARCHAR NOT NULL PRIMARY KEY,
    name VARCHAR NOT NULL,
    lat DOUBLE,
    lon DOUBLE,
    alt INT,
    tzone VARCHAR
) WITH ('connectors' = '[{
    "transport": {"name": "file_input", "config": {"path": "data/airports.csv"}},
    "format": {"name": "csv", "config": {"null_values": ["NA"]}}
}]');

CREATE TABLE planes (
    tailnum VARCHAR NOT NULL PRIMARY KEY,
    year INT,
    type VARCHAR,
    manufacturer VARCHAR,
    model VARCHAR,
    engines INT,
    seats INT,
    engine VARCHAR
) WITH ('connectors' = '[{
    "transport": {"name": "file_input", "config": {"path": "data/planes.csv"}},
    "format": {"name": "csv", "config": {"null_values": ["NA"]}}
}]');

CREATE TABLE weather (
    origin VARCHAR NOT NULL,
    time_hour TIMESTAMP NOT NULL,
    temp DOUBLE,
    humid DOUBLE,
    wind_speed DOUBLE,
    precip DOUBLE,
    pressure DOUBLE,
    visib DOUBLE,
    PRIMARY KEY (origin, time_hour)
) WITH ('connectors' = '[{
    "transport": {"name": "file_input", "config": {"path": "data/weather.csv.gz"}},
    "format": {"name": "csv", "config": {"null_values": ["NA"]}}
}]');

CREATE TABLE flights (
    year INT NOT NULL,
    month INT NOT NULL,
    day INT NOT NULL,
    dep_time INT,
    sched_dep_time INT NOT NULL,
    dep_delay INT,
    arr_time INT,
    sched_arr_time INT NOT NULL,
    arr_delay INT,
    carrier VARCHAR NOT NULL,
    flight INT NOT NULL,
    tailnum VARCHAR,
    origin VARCHAR NOT NULL,
    dest VARCHAR NOT NULL,
    air_time INT,
    distance INT NOT NULL,
    time_hour TIMESTAMP NOT NULL
) WITH ('connectors' = '[{
    "transport": {"name": "file_input", "config": {"path": "data/flights.csv.gz"}},
    "format": {"name": "csv", "config": {"null_values": ["NA"]}}
}]');

-- How late is each airline in each month, and how much does it cancel?
CREATE MATERIALIZED VIEW delays_by_carrier_month
WITH ('connectors' = '[{"transport": {"name": "file_output", "config": {"path": "${DATA_DIR}/out/delays_by_carrier_month.ndjson"}},
                        "format": {"name": "json"}}]')
AS SELECT a.name AS airline, f.month, count(*) AS flights, count(*) - count(f.dep_time) AS cancelled,
          avg(f.dep_delay) AS avg_dep_delay, avg(f.arr_delay) AS avg_arr_delay, max(f.arr_delay) AS worst_arr_delay
   FROM flights f JOIN airlines a ON f.carrier = a.carrier
   GROUP BY a.name, f.month;

-- A view on a view: the year's figures of each airline.
CREATE VIEW airlines_in_short
WITH ('connectors' = '[{"transport": {"name": "file_output", "config": {"path": "${DATA_DIR}/out/airlines_in_short.ndjson"}},
                        "format": {"name": "json"}}]')
AS SELECT airline, sum(flights) AS flights, sum(cancelled) AS cancelled,
          round(100.0 * sum(cancelled) / sum(flights), 2) AS cancelled_percent, max(worst_arr_delay) AS worst_arr_delay
   FROM delays_by_carrier_month
   GROUP BY airline;

-- The routes on which one arrives late, among those flown at least a hundred times.
CREATE VIEW worst_routes
WITH ('connectors' = '[{"transport": {"name": "file_output", "config": {"path": "${DATA_DIR}/out/worst_routes.ndjson"}},
                        "format": {"name": "json"}}]')
AS SELECT f.origin, d.name AS destination, count(*) AS flights, avg(f.arr_delay) AS avg_arr_delay, min(f.arr_delay) AS best,
          max(f.arr_delay) AS worst
   FROM flights f JOIN airports d ON f.dest = d.faa
   WHERE f.arr_delay IS NOT NULL
   GROUP BY f.origin, d.name
   HAVING count(*) >= 100 AND avg(f.arr_delay) > 10;

-- Does bad weather make flights late? By visibility (whole miles) and rain or snow at the hour of departure.
CREATE VIEW delay_by_weather
WITH ('connectors' = '[{"transport": {"name": "file_output", "config": {"path": "${DATA_DIR}/out/delay_by_weather.ndjson"}},
                        "format": {"name": "json"}}]')
AS SELECT floor(w.visib) AS visibility_miles, w.precip > 0 AS wet, count(*) AS flights, avg(f.dep_delay) AS avg_dep_delay,
          count(*) - count(f.dep_time) AS cancelled, avg(w.wind_speed) AS avg_wind
   FROM flights f JOIN weather w ON f.origin = w.origin AND f.time_hour = w.time_hour
   GROUP BY floor(w.visib), w.precip > 0;

-- Are old planes later than new ones? By age in steps of five years, and maker.
CREATE VIEW delay_by_fleet_age
WITH ('connectors' = '[{"transport": {"name": "file_output", "config": {"path": "${DATA_DIR}/out/delay_by_fleet_age.ndjson"}},
                        "format": {"name": "json"}}]')
AS SELECT (2013 - p.year) / 5 * 5 AS age_from, p.manufacturer, count(*) AS flights, sum(f.distance) AS miles,
          avg(f.dep_delay) AS avg_dep_delay
   FROM flights f JOIN planes p ON f.tailnum = p.tailnum
   WHERE p.year IS NOT NULL AND f.dep_delay IS NOT NULL
   GROUP BY (2013 - p.year) / 5 * 5, p.manufacturer;

-- Each flight that left over four hours late, with everything known about it: a join of all five tables.
CREATE VIEW very_late
WITH ('connectors' = '[{"transport": {"name": "file_output", "config": {"path": "${DATA_DIR}/out/very_late.ndjson"}},
                        "format": {"name": "json"}}]')
AS SELECT f.time_hour, a.name AS airline, f.flight, o.name AS from_airport, d.name AS to_airport, f.dep_delay,
          upper(p.manufacturer) || ' ' || p.model AS plane, p.year AS built, w.temp, w.wind_speed, w.visib
   FROM flights f
   JOIN airlines a ON f.carrier = a.carrier
   JOIN airports o ON f.origin = o.faa
   JOIN airports d ON f.dest = d.faa
   JOIN planes p ON f.tailnum = p.tailnum
   JOIN weather w ON f.origin = w.origin AND f.time_hour = w.time_hour
   WHERE f.dep_delay > 240;

-- Departures and arrivals of each airport, one table of both.
CREATE VIEW traffic
WITH ('connectors' = '[{"transport": {"name": "file_output", "config": {"path": "${DATA_DIR}/out/traffic.csv"}},
                        "format": {"name": "csv"}}]')
AS SELECT origin AS airport, 'departures' AS direction, count(*) AS flights, avg(dep_delay) AS avg_delay
   FROM flights WHERE dep_time IS NOT NULL GROUP BY origin
   UNION ALL
   SELECT dest AS airport, 'arrivals' AS direction, count(*) AS flights, avg(arr_delay) AS avg_delay
   FROM flights WHERE arr_time IS NOT NULL GROUP BY dest;
