//! Every column type through a real pipeline: from JSON and CSV to JSON and CSV; and what is wrong with a value.

use crate::cli::Place;
use crate::process::{output, stderr, succeed};

const COLUMNS: &str = "id INT, flag BOOLEAN, n DECIMAL(10, 2), b BINARY, d DATE, t TIME, ts TIMESTAMP, u UUID, j JSON, \
    a INT ARRAY, r ROW(x INT, y VARCHAR), m MAP<VARCHAR, DOUBLE>, l ARRAY<ROW(p INT, q DOUBLE[])>";

fn program(input: &str, format: &str) -> String {
    let connector = |transport: &str, path: &str, format: &str| {
        format!(
            "WITH ('connectors' = '[{{\"transport\": {{\"name\": \"{transport}\", \"config\": {{\"path\": \"{path}\"}}}}, \
             \"format\": {{\"name\": \"{format}\"}}}}]')"
        )
    };
    format!(
        "CREATE TABLE t ({COLUMNS}) {};\nCREATE VIEW v {} AS SELECT * FROM t;\nCREATE VIEW w {} AS SELECT * FROM t;\n\
         CREATE VIEW x {} AS SELECT id, j ->> 'k' AS k, e.p AS p, cardinality(e.q) AS n, o, m['one'] AS one, ts - TIMESTAMP '2024-01-01 00:00:00' AS age \
         FROM t CROSS JOIN UNNEST(l) WITH ORDINALITY AS u(e, o);\n",
        connector("file_input", input, format),
        connector("file_output", "${DATA_DIR}/v.json", "json"),
        connector("file_output", "${DATA_DIR}/v.csv", "csv"),
        connector("file_output", "${DATA_DIR}/x.json", "json"),
    )
}

const ROW: &str = r#""id":1,"flag":true,"n":"12.50","b":"00ff","d":"2024-01-31","t":"13:05:00.250","ts":"2024-01-02T03:04:05","u":"7d444840-9dc0-11d1-b245-5ffdce74fad2","j":{"k":"é","n":[1,2]},"a":[1,null,3],"r":{"x":1,"y":"a\"b"},"m":{"one":1.0,"two":2.5},"l":[{"p":1,"q":[0.5]},{"p":null,"q":[]}]"#;

fn run(place: &Place) -> String {
    succeed(place.args())
}

fn file(place: &Place, name: &str) -> String {
    std::fs::read_to_string(place.path(&format!("data/{name}"))).unwrap()
}

#[test]
fn every_type_comes_through() {
    let place = Place::new();
    place.write("p.sql", &program("t.json", "json"));
    // Keys in another order, spaces, upper case, text in the place of numbers.
    let written = ROW
        .replace(r#""x":1,"y":"a\"b""#, r#" "Y" : "a\u0022b", "z": [{}], "X" : "1" "#)
        .replace("7d444840-9dc0-11d1-b245-5ffdce74fad2", "7D4448409DC011D1B2455FFDCE74FAD2")
        .replace(r#""one":1.0,"two":2.5"#, r#""two":2.5,"one":7,"one":1"#);
    let nulls = r#"{"insert":{"id":2,"j":null,"a":null,"r":{},"m":{},"l":[]}}"#;
    place.write("t.json", &format!("{{\"insert\":{{{written}}}}}\n{nulls}\n"));
    run(&place);
    let row = ROW.replace(r#"{"k":"é","n":[1,2]}"#, r#""{\"k\":\"é\",\"n\":[1,2]}""#);
    let all_null = r#""id":2,"flag":null,"n":null,"b":null,"d":null,"t":null,"ts":null,"u":null,"j":null,"a":null,"r":{"x":null,"y":null},"m":{},"l":[]"#;
    assert_eq!(file(&place, "v.json"), format!("{{\"insert\":{{{row}}}}}\n{{\"insert\":{{{all_null}}}}}\n"));
    assert_eq!(
        file(&place, "x.json"),
        "{\"insert\":{\"id\":1,\"k\":\"é\",\"p\":null,\"n\":0,\"o\":2,\"one\":1.0,\"age\":\"PT27H4M5S\"}}\n\
         {\"insert\":{\"id\":1,\"k\":\"é\",\"p\":1,\"n\":1,\"o\":1,\"one\":1.0,\"age\":\"PT27H4M5S\"}}\n"
    );

    // What is written as CSV is read again as the same rows.
    let csv = file(&place, "v.csv");
    assert!(csv.contains(r#","[1,null,3]","{""x"":1,""y"":""a\""b""}","#), "{csv}");
    let input: Vec<&str> = csv.lines().map(|line| line.rsplit_once(',').unwrap().0).collect();
    let again = Place::new();
    again.write("p.sql", &program("t.csv", "csv"));
    again.write("t.csv", &format!("{}\n", input.join("\n")));
    run(&again);
    for name in ["v.json", "v.csv", "x.json"] {
        assert_eq!(file(&again, name), file(&place, name), "{name}");
    }
}

#[test]
fn what_is_wrong_with_a_value() {
    for (value, says) in [
        (r#""a":[1,"x"]"#, r#"column a: column item expected an INT (-2147483648 to 2147483647), got "x""#),
        (r#""a":{"x":1}"#, "column a: not a JSON list, at byte 0: expected a list, got '{'"),
        (r#""a":7"#, r#"column a expected a JSON list, got "7""#),
        (r#""a":"[1,""#, "column a: not a JSON list, at byte 3: expected a value, and the line ends"),
        (r#""r":[1]"#, "column r: not a JSON object, at byte 0: expected an object, got '['"),
        (r#""m":{"a":"b"}"#, r#"column m: column value expected a number, got "b""#),
        (
            r#""l":[{"p":1},{"q":[true]}]"#,
            "column l: column item: column q: column item expected a number, got a truth value",
        ),
        (r#""u":"7d444840""#, r#"column u expected a UUID, got "7d444840""#),
        (r#""id":[1]"#, "column id expected an INT (-2147483648 to 2147483647), got a list or object"),
    ] {
        let place = Place::new();
        place.write("p.sql", &program("t.json", "json"));
        place.write("t.json", &format!("{{\"insert\":{{{value}}}}}\n"));
        let output = output(place.args());
        let text = stderr(&output);
        assert!(text.contains(says) && !text.contains("panicked"), "{value} does not say {says:?}: {text}");
    }
}
