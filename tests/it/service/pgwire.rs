//! Clients of PostgreSQL's protocol: psql, and tokio-postgres, which uses the extended protocol and binary values.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio_postgres::types::{FromSql, ToSql, Type};
use tokio_postgres::{Client, NoTls};

use super::security::{certificate, key_file};
use super::server::Service;

const SQL: &str = r#"
CREATE TABLE t (id BIGINT NOT NULL PRIMARY KEY, n INT, name VARCHAR, price DECIMAL(10, 2), ts TIMESTAMP, d DATE, f DOUBLE, ok BOOLEAN, raw VARBINARY)
    WITH ('materialized' = 'true');
CREATE MATERIALIZED VIEW totals AS SELECT count(*) AS c, sum(n) AS s, sum(price) AS p FROM t;
CREATE MATERIALIZED VIEW lists AS SELECT name, array_agg(id) AS ids, max(ts) AS last FROM t GROUP BY name;
CREATE MATERIALIZED VIEW pairs AS SELECT id, named_struct('n', n, 'name', name) AS pair FROM t;
CREATE VIEW passing AS SELECT id FROM t;
"#;
const ROWS: &str = r#"[
    {"id": 1, "n": 10, "name": "a", "price": "1.50", "ts": "2024-05-01 12:00:00.25", "d": "2024-05-01", "f": 0.1, "ok": true, "raw": "00ff"},
    {"id": 2, "n": -5, "name": "it's", "price": "20.00", "ts": "1999-12-31 23:59:59", "d": "1999-12-31", "f": -1e300, "ok": false, "raw": ""},
    {"id": 3, "n": null, "name": null, "price": null, "ts": null, "d": null, "f": null, "ok": null, "raw": null}]"#;

/// A service with a pipeline `p` that has the rows.
fn service(root: &std::path::Path, more: &[&str]) -> Service {
    let more: Vec<&str> = ["--bind-postgres", "127.0.0.1:0"].iter().chain(more).copied().collect();
    let service = Service::start_with(root, &more);
    service.create("p", SQL, json!({ "workers": 1 }));
    service.turn("p", "start", "Running");
    let pushed = service.send("POST", "/v0/pipelines/p/ingress/t?format=json&array=true&update_format=raw", &[], ROWS);
    assert_eq!(pushed.status, 200, "{}", pushed.body);
    service.until("the rows are there", || service.value("p", "SELECT c FROM totals") == Some(json!(3)));
    service
}

/// What psql prints, and whether it succeeded.
fn psql(service: &Service, database: &str, commands: &[&str]) -> (bool, String) {
    let (host, port) = service.postgres().rsplit_once(':').unwrap();
    let mut command = Command::new("psql");
    command.env("PGPASSWORD", "a wrong key, a wrong key").env("PGCONNECT_TIMEOUT", "30");
    command.args(["-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", host, "-p", port, "-U", "anyone", "-d", database]);
    for c in commands {
        command.args(["-c", c]);
    }
    let output = command.output().unwrap();
    let all = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(all).unwrap())
}

fn has_psql() -> bool {
    let there = Command::new("psql").arg("--version").output().is_ok();
    assert!(
        there || std::env::var_os("BACKSTAY_REQUIRE_SERVERS").is_none(),
        "psql is needed (apt-get install postgresql)"
    );
    if !there {
        eprintln!("skipped: there is no psql");
    }
    there
}

#[test]
fn psql_reads_views_and_shows_what_there_is() {
    if !has_psql() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let service = service(dir.path(), &[]);
    let asked = |commands: &[&str]| {
        let (is_ok, said) = psql(&service, "p", commands);
        assert!(is_ok, "{commands:?}: {said}");
        said
    };
    assert_eq!(asked(&["SELECT c, s, p FROM totals"]), "3|5|21.50\n");
    let row = "1|10|a|1.50|2024-05-01 12:00:00.250000|2024-05-01|0.1|t|\\x00ff\n";
    assert_eq!(asked(&["SELECT * FROM t WHERE id = 1"]), row);
    assert_eq!(asked(&["SELECT ids FROM public.lists WHERE name = 'it''s'"]), "{2}\n");
    assert_eq!(asked(&["SELECT pair FROM pairs WHERE id = 2"]), "{\"n\":-5,\"name\":\"it's\"}\n");
    assert_eq!(asked(&["BEGIN; SELECT 1; SELECT 'a;b'; COMMIT; SHOW server_version"]), "BEGIN\n1\na;b\nCOMMIT\n15.0\n");
    assert_eq!(asked(&["SELECT current_database(), current_schema()"]), "p|public\n");
    // What its commands ask of the catalog.
    let all = asked(&["\\d"]);
    for line in ["public|t|table|backstay", "public|totals|materialized view|backstay", "public|passing|view|backstay"]
    {
        assert!(all.lines().any(|l| l == line), "{line} is not in\n{all}");
    }
    assert_eq!(asked(&["\\dt"]), "public|t|table|backstay\n");
    assert!(asked(&["\\l"]).starts_with("p|backstay|UTF8|C|C|"));
    assert_eq!(asked(&["\\dn"]), "public|backstay\n");
    let columns = asked(&["\\d t"]);
    for line in ["id|bigint||not null|", "name|text|||", "price|numeric|||", "ts|timestamp without time zone|||"] {
        assert!(columns.lines().any(|l| l == line), "{line} is not in\n{columns}");
    }
    let names =
        "SELECT column_name FROM information_schema.columns WHERE table_name = 'totals' ORDER BY ordinal_position";
    assert_eq!(asked(&[names]), "c\ns\np\n");

    // What a builder of queries (Grafana's) asks for, which takes the search path and names apart.
    let path = "quote_ident(table_schema) IN (SELECT CASE WHEN p[i] = '\"$user\"' THEN user ELSE p[i] END FROM
        generate_series(1, array_upper(string_to_array(current_setting('search_path'), ','), 1)) AS i, string_to_array(current_setting('search_path'), ',') p)";
    let tables = format!(
        "SELECT CASE WHEN {path} THEN quote_ident(table_name) ELSE 'another' END AS t FROM information_schema.tables ORDER BY 1"
    );
    assert_eq!(asked(&[&tables]), "lists\npairs\npassing\nt\ntotals\n");
    for (name, found) in [("totals", "c|bigint\n"), ("Public.totals", "c|bigint\n"), ("public.\"Totals\"", "")] {
        let columns = format!(
            "SELECT quote_ident(column_name), data_type FROM information_schema.columns WHERE column_name = 'c' AND
             CASE WHEN array_length(parse_ident('{name}'), 1) = 2 THEN table_schema = (parse_ident('{name}'))[1] AND table_name = (parse_ident('{name}'))[2]
             ELSE table_name = '{name}' AND {path} END"
        );
        assert_eq!(asked(&[&columns]), found, "{name}");
    }
    assert_eq!(asked(&["SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'"]), "");

    for (sql, expected) in [
        ("SELECT nam FROM t", "column `nam`"),
        ("SELECT id FROM passing", "`passing` is not materialized"),
        ("INSERT INTO t VALUES (4)", "INSERT: only queries are answered here"),
        ("SELECT 'unended", "unterminated"),
    ] {
        let (is_ok, said) = psql(&service, "p", &[sql]);
        assert!(!is_ok && said.to_lowercase().contains(&expected.to_lowercase()), "{sql}: {said}");
    }
    let (is_ok, said) = psql(&service, "nobody", &["SELECT 1"]);
    assert!(!is_ok && said.contains("there is no pipeline \"nobody\"") && said.contains("there are: p"), "{said}");
    service.turn("p", "stop?force=true", "Stopped");
    let (is_ok, said) = psql(&service, "p", &["SELECT c FROM totals"]);
    assert!(!is_ok && said.contains("cannot be asked: it is Stopped"), "{said}");
    assert_eq!(psql(&service, "p", &["\\dt"]), (true, "public|t|table|backstay\n".to_owned()));
    service.end();
}

#[test]
fn the_key_is_the_password() {
    if !has_psql() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys");
    let key = key_file(&keys);
    let more = ["--bind-postgres", "127.0.0.1:0", "--api-key-file", keys.to_str().unwrap(), "--max-wrong-keys", "3"];
    let service = Service::start_with(&dir.path().join("data"), &more);
    let (is_ok, said) = psql(&service, "p", &["SELECT 1"]);
    assert!(!is_ok && said.contains("not one of the service's API keys"), "{said}");
    let with = |password: &str| {
        let config = format!("postgresql://anyone@{}/p", service.postgres());
        let mut config: tokio_postgres::Config = config.parse().unwrap();
        config.password(password);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let refused = runtime.block_on(config.connect(NoTls)).err().unwrap();
        refused.as_db_error().unwrap().message().to_owned()
    };
    // Who has the key is told what pipelines there are.
    assert!(with(&key).contains("there is no pipeline"));
    assert!(with(&key[1..]).contains("not one of the service's API keys"));
    assert!(with("").contains("not one of the service's API keys"));
    assert!(with(&key).contains("too many wrong keys"));
}

/// The password is asked for over TLS, too, of whoever asks for that.
#[test]
fn tls_is_spoken_to_who_asks_for_it() {
    if !has_psql() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (certificate, private) = certificate(dir.path());
    let more = [
        "--bind-postgres",
        "127.0.0.1:0",
        "--tls-cert",
        certificate.to_str().unwrap(),
        "--tls-key",
        private.to_str().unwrap(),
    ];
    let service = Service::start_with(&dir.path().join("data"), &more);
    let port = service.postgres().rsplit_once(':').unwrap().1;
    for (mode, expected) in [
        ("verify-full", "there is no pipeline"),
        ("require", "there is no pipeline"),
        ("disable", "there is no pipeline"),
    ] {
        let info =
            format!("host=localhost port={port} dbname=p user=x sslmode={mode} sslrootcert={}", certificate.display());
        let output = Command::new("psql").args(["-X", &info, "-c", "SELECT 1"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(expected), "{mode}: {said}");
    }
}

/// Runs something with a connection to the pipeline.
fn connected<F: Future<Output = ()>>(service: &Service, with: impl FnOnce(Client) -> F) {
    let config = format!("postgresql://anyone@{}/p", service.postgres());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(&config, NoTls).await.unwrap();
        let connection = tokio::spawn(connection);
        with(client).await;
        connection.abort();
    });
}

#[test]
fn prepared_statements_take_parameters_and_give_binary_values() {
    let dir = tempfile::tempdir().unwrap();
    let service = service(dir.path(), &[]);
    connected(&service, |mut client| async move {
        let statement = client.prepare_typed("SELECT * FROM t WHERE id = $1", &[Type::INT8]).await.unwrap();
        let types: Vec<Type> = statement.columns().iter().map(|c| c.type_().clone()).collect();
        let expected = [
            Type::INT8,
            Type::INT4,
            Type::TEXT,
            Type::NUMERIC,
            Type::TIMESTAMP,
            Type::DATE,
            Type::FLOAT8,
            Type::BOOL,
            Type::BYTEA,
        ];
        assert_eq!(types, expected);
        let row = client.query_one(&statement, &[&1_i64]).await.unwrap();
        assert_eq!((row.get::<_, i64>(0), row.get::<_, Option<i32>>(1), row.get::<_, &str>(2)), (1, Some(10), "a"));
        assert_eq!((row.get::<_, f64>(6), row.get::<_, bool>(7), row.get::<_, &[u8]>(8)), (0.1, true, &[0, 255][..]));
        let moment: std::time::SystemTime = row.get(4);
        let since = moment.duration_since(std::time::UNIX_EPOCH).unwrap();
        assert_eq!(since, Duration::from_millis(1_714_564_800_250));
        let row = client.query_one(&statement, &[&3_i64]).await.unwrap();
        assert_eq!(
            (row.get::<_, Option<i32>>(1), row.get::<_, Option<&str>>(2), row.get::<_, Option<bool>>(7)),
            (None, None, None)
        );
        assert!(client.query(&statement, &[&None::<i64>]).await.unwrap().is_empty());

        // Undeclared: a text, which takes its type from where it stands.
        let rows = client.query("SELECT id FROM t WHERE name = $1 AND n < $2", &[&"it's", &"7"]).await.unwrap();
        assert_eq!(rows.iter().map(|r| r.get::<_, i64>(0)).collect::<Vec<_>>(), [2]);
        let injected = client.query("SELECT id FROM t WHERE name = $1", &[&"' OR ''='"]).await.unwrap();
        assert!(injected.is_empty());
        let typed = [Type::TIMESTAMP, Type::BOOL, Type::FLOAT8, Type::BYTEA];
        let sql = "SELECT id FROM t WHERE ts >= $1 AND ok = $2 AND f > $3 AND raw = $4";
        let statement = client.prepare_typed(sql, &typed).await.unwrap();
        let parameters: [&(dyn ToSql + Sync); 4] = [&moment, &true, &0.05_f64, &&[0_u8, 255][..]];
        assert_eq!(client.query_one(&statement, &parameters).await.unwrap().get::<_, i64>(0), 1);

        let row = client.query_one("SELECT ids, last FROM lists WHERE name = 'a'", &[]).await.unwrap();
        assert_eq!(row.get::<_, Vec<i64>>(0), [1]);
        let numeric: Numeric = client.query_one("SELECT p FROM totals", &[]).await.unwrap().get(0);
        assert_eq!(numeric.0, "21.50");

        // A portal, some rows at a time.
        let transaction = client.transaction().await.unwrap();
        let portal = transaction.bind("SELECT id FROM t ORDER BY id DESC", &[]).await.unwrap();
        let mut ids = Vec::new();
        loop {
            let rows = transaction.query_portal(&portal, 2).await.unwrap();
            assert!(rows.len() <= 2);
            if rows.is_empty() {
                break;
            }
            ids.extend(rows.iter().map(|r| r.get::<_, i64>(0)));
        }
        assert_eq!(ids, [3, 2, 1]);
        transaction.commit().await.unwrap();

        // An error leaves the connection as it was.
        let wrong = client.query("SELECT nothing FROM t", &[]).await.unwrap_err();
        assert!(wrong.as_db_error().unwrap().message().contains("nothing"), "{wrong:?}");
        assert_eq!(client.query("SELECT id FROM t", &[]).await.unwrap().len(), 3);
    });
}

/// The digits of a NUMERIC.
struct Numeric(String);

impl FromSql<'_> for Numeric {
    fn from_sql(_: &Type, raw: &[u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        let word = |i: usize| i16::from_be_bytes([raw[2 * i], raw[2 * i + 1]]);
        let (digits, weight, scale) = (word(0) as usize, word(1), word(3) as usize);
        let value: f64 =
            (0..digits).map(|i| f64::from(word(4 + i)) * 10_000_f64.powi(i32::from(weight) - i as i32)).sum();
        Ok(Self(format!("{value:.scale$}")))
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::NUMERIC
    }
}

#[test]
fn what_clients_send_ends_their_connection_at_most() {
    let dir = tempfile::tempdir().unwrap();
    let service = service(dir.path(), &[]);
    let mut rng = crate::rng::Rng::new(7);
    let startup = {
        let body = b"\0\x03\0\0user\0x\0database\0p\0\0";
        [&(body.len() as u32 + 4).to_be_bytes()[..], body].concat()
    };
    let message = |kind: u8, body: &[u8]| [&[kind][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat();
    // Two columns, three formats; a parameter too few; lengths that lie; kinds that are none.
    let mut hostile = vec![
        [
            message(b'P', b"\0SELECT 1, 2\0\0\0"),
            message(b'B', b"\0\0\0\0\0\0\0\x03\0\x01\0\x01\0\x01"),
            message(b'D', b"P\0"),
            message(b'E', b"\0\0\0\0\0"),
            message(b'S', b""),
        ]
        .concat(),
        [
            message(b'P', b"\0SELECT $2\0\0\0"),
            message(b'B', b"\0\0\0\x02\0\0\0\x01\0\x01\0\0\0\0\0\0"),
            message(b'E', b"\0\0\0\0\0"),
            message(b'S', b""),
        ]
        .concat(),
        message(b'B', b"\0\0\xff\xff\xff\xff"),
        message(b'Q', b"SELECT 1"),
        b"Q\xff\xff\xff\xff".to_vec(),
        b"Q\0\0\0\x01".to_vec(),
    ];
    for _ in 0..200 {
        let kind = *rng.one_of(&[&b'P', &b'B', &b'D', &b'E', &b'C', &b'Q', &b'p', &b'd', &b'F', &b'X']);
        let body: Vec<u8> = (0..rng.below(40)).map(|_| if rng.once_in(2) { 0 } else { rng.below(256) as u8 }).collect();
        hostile.push(message(kind, &body));
    }
    for (i, bytes) in hostile.iter().enumerate() {
        let mut stream = TcpStream::connect(service.postgres()).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(if i < 6 { 2000 } else { 20 }))).unwrap();
        // Some of them before there is a session.
        if i % 5 != 4 {
            stream.write_all(&startup).unwrap();
        }
        let _ = stream.write_all(bytes).and_then(|()| stream.write_all(&message(b'X', b"")));
        let mut answer = [0; 4096];
        let until = Instant::now() + Duration::from_secs(5);
        while matches!(stream.read(&mut answer), Ok(1..)) && Instant::now() < until {}
    }
    connected(&service, |client| async move {
        assert_eq!(client.query("SELECT id FROM t", &[]).await.unwrap().len(), 3);
    });
    assert_eq!(service.value("p", "SELECT c FROM totals"), Some(json!(3)));
    service.end();
}
