//! The connectors over a server that speaks S3's protocol.

use super::cases::{ROWS, csv, disk, input, output, schema};
use super::{inputs, outputs};
use crate::rng::Rng;
use crate::s3::Server;

#[test]
fn inputs_and_outputs_keep_the_contract() {
    let Some(server) = Server::start() else { return };
    let (mut random, seed) = Rng::from_env(7);
    server.put("a-1", csv(0..ROWS));
    server.put("a-2", csv(ROWS..2 * ROWS));
    server.put("b", "id\n7\n");
    let json = |transport: &str, prefix: &str| {
        let settings = server.settings();
        format!(
            r#"{{"transport": {{"name": "{transport}", "config": {{{settings}, "prefix": "{prefix}"}}}}, "format": {{"name": "csv"}}}}"#
        )
    };
    let disk = disk();
    let case = inputs::Case {
        name: &format!("s3_input of a server, seed {seed}"),
        make: &|| input(&disk, &json("s3_input", "a-"), schema()),
        rows: 2 * ROWS as usize,
        change: Some(&|| server.put("a-1", csv(1..ROWS + 1))),
    };
    inputs::check(&case, &mut random);

    let case = outputs::Case {
        name: "s3_output of a server",
        make: &|sink| output(&disk, sink, &json("s3_output", &format!("out-{sink}/v-"))),
        content: &|sink| {
            let objects = server.objects(&format!("out-{sink}")).into_iter();
            Some(objects.map(|(name, bytes)| format!("{name}: {}", String::from_utf8(bytes).unwrap())).collect())
        },
        every: 2,
    };
    outputs::check(&case, &schema());
}
