use arrow::array::AsArray;
use arrow::datatypes::{Field, Int64Type, Schema, TimestampMicrosecondType};
use backstay_storage::disk::SimDisk;

use super::super::super::testing::*;
use super::super::super::{Input, Position, registry};
use super::*;

fn table(table: Table) -> (&'static str, SchemaRef) {
    let field = |(name, _): &(&str, Column)| {
        let data_type = match *name {
            "dateTime" | "expires" => DataType::Timestamp(TimeUnit::Microsecond, None),
            "id" | "initialBid" | "reserve" | "seller" | "category" | "auction" | "bidder" | "price" => DataType::Int64,
            _ => DataType::Utf8,
        };
        Field::new(name.to_lowercase(), data_type, false)
    };
    let name = match table {
        Table::Person => "person",
        Table::Auction => "auction",
        Table::Bid => "bid",
    };
    (name, Arc::new(Schema::new(table.columns().iter().map(field).collect::<Vec<_>>())))
}

fn make(of: Table, options: &str) -> Box<dyn Input> {
    let (name, schema) = table(of);
    let json =
        format!(r#"{{"transport": {{"name": "nexmark", "config": {{"table": "{name}", "options": {options}}}}}}}"#);
    registry::input(&config(&json), context(Arc::new(SimDisk::new(1)), schema)).unwrap()
}

const TABLES: [Table; 3] = [Table::Person, Table::Auction, Table::Bid];

#[test]
fn chunks_do_not_matter() {
    for of in TABLES {
        let input = make(of, r#"{"events": 12345, "seed": 9}"#);
        assert!(input.is_finite());
        let chunks = drain(&mut *input.open(&Position::default()).unwrap());
        let n = match of {
            Table::Person => 247,
            Table::Auction => 741,
            Table::Bid => 11_357,
        };
        assert_eq!(all_rows(&chunks).num_rows(), n);
        for seed in 0..2 {
            check_replay_of_generator(&*input, &chunks, seed);
        }
    }
}

/// As `check_replay`, and a few positions only.
fn check_replay_of_generator(input: &dyn Input, chunks: &[super::super::super::Chunk], seed: u64) {
    let steps = cut(chunks, &mut Rng(seed));
    let mut at = Vec::new();
    let mut position = Position::default();
    for step in &steps {
        at.extend(input.replay(step).unwrap());
        position.apply(step);
    }
    assert_eq!(text(&all_rows(&at)), text(&all_rows(chunks)));
    let mut half = Position::default();
    let (before, _) = steps.split_at(steps.len() / 2);
    before.iter().for_each(|s| half.apply(s));
    let mut both: Vec<_> = before.iter().flat_map(|s| input.replay(s).unwrap()).collect();
    both.extend(drain(&mut *input.open(&half).unwrap()));
    assert_eq!(text(&all_rows(&both)), text(&all_rows(chunks)));
    assert!(drain(&mut *input.open(&position).unwrap()).is_empty());
}

#[test]
fn golden() {
    let first = |of| {
        let chunks = drain(&mut *make(of, r#"{"events": 200}"#).open(&Position::default()).unwrap());
        text(&all_rows(&chunks).slice(1, 1)).chars().take(160).collect::<String>()
    };
    assert_eq!(first(Table::Person), GOLDEN_PERSON);
    assert_eq!(first(Table::Auction), GOLDEN_AUCTION);
    assert_eq!(first(Table::Bid), GOLDEN_BID);
}

const GOLDEN_PERSON: &str = "1001,Vicky Shultz,vevmr@tpaff.com,9079 3909 4799 8255,Cheyenne,WY,2015-07-15T00:00:00.005,arrbxazhoizfptqqlshqkdendnrpdwbwjocyjteozmgylqpurveec dvqapjgtaxxgeate";
const GOLDEN_AUCTION: &str = "1001,cwtegcccig,ljtb loykaexr rmrnyikbyo,885211,35926060,2015-07-15T00:00:00.000200,2015-07-15T00:00:00.207025,1000,14,zsixtbei cvyxayfujuketa ejsaaezeeqpeookoe";
const GOLDEN_BID: &str = "1000,1001,973,channel-5500,https://www.nexmark.com/2fda76bc/item.htm?query=1&channel_id=5500,2015-07-15T00:00:00.000500,gfeiitjnsbftepoaizflytutkptryfduz vyeeev";

#[test]
fn it_looks_like_an_auction_house() {
    let read = |of| {
        all_rows(&drain(
            &mut *make(of, r#"{"events": 100000, "events_per_second": 1000}"#).open(&Position::default()).unwrap(),
        ))
    };
    let (bids, auctions, persons) = (read(Table::Bid), read(Table::Auction), read(Table::Person));
    assert_eq!((persons.num_rows(), auctions.num_rows(), bids.num_rows()), (2000, 6000, 92_000));
    let ids: Vec<i64> = auctions.column(0).as_primitive::<Int64Type>().values().to_vec();
    assert_eq!(ids, (1000..7000).collect::<Vec<_>>());
    assert_eq!(persons.column(0).as_primitive::<Int64Type>().values().to_vec(), (1000..3000).collect::<Vec<_>>());
    let bid_auctions = bids.column(0).as_primitive::<Int64Type>().values();
    assert!(bid_auctions.iter().all(|a| (1000..7000 + LEAD as i64).contains(a)));
    let hot = bid_auctions.iter().filter(|a| (*a - 1000) % 100 == 0).count();
    assert!((45_000..50_000).contains(&hot), "{hot}");
    let prices = bids.column(2).as_primitive::<Int64Type>().values();
    assert!(prices.iter().all(|p| (100..100_000_000).contains(p)));
    let times = bids.column(5).as_primitive::<TimestampMicrosecondType>().values();
    assert!(times.windows(2).all(|w| w[0] <= w[1]));
    assert_eq!(times[0], BASE_TIME + 4000);
    let (from, to) = (auctions.column(5), auctions.column(6));
    let pairs = from
        .as_primitive::<TimestampMicrosecondType>()
        .values()
        .iter()
        .zip(to.as_primitive::<TimestampMicrosecondType>().values());
    assert!(pairs.into_iter().all(|(a, b)| a < b));
    let emails = persons.column(2).as_string::<i32>();
    assert!(emails.iter().flatten().all(|e| e.contains('@') && !e.contains(' ')));
}

#[test]
fn settings_are_checked() {
    let fail = |json: &str, schema: SchemaRef| {
        registry::input(&config(json), context(Arc::new(SimDisk::new(1)), schema)).unwrap_err().to_string()
    };
    let of = |c: &str| format!(r#"{{"transport": {{"name": "nexmark", "config": {c}}}}}"#);
    let bid = || table(Table::Bid).1;
    assert!(fail(&of(r#"{"table": "bids"}"#), bid()).contains("did you mean \"bid\"?"));
    assert!(fail(&of(r#"{"table": "person"}"#), bid()).contains("has no column auction"));
    assert!(fail(&of(r#"{"table": "bid", "options": {"threads": 2}}"#), bid()).contains("not supported yet"));
    let wrong: SchemaRef = Arc::new(Schema::new(vec![Field::new("price", DataType::Utf8, false)]));
    assert!(fail(&of(r#"{"table": "bid"}"#), wrong).contains("cannot become"));
    let with_format = r#"{"transport": {"name": "nexmark", "config": {"table": "bid"}}, "format": {"name": "csv"}}"#;
    assert!(fail(with_format, bid()).contains("no \"format\""));
    let chunks = drain(&mut *make(Table::Bid, r#"{"events": 200}"#).open(&Position::default()).unwrap());
    let step = &cut(&chunks, &mut Rng(1))[0];
    let e = make(Table::Bid, r#"{"events": 200, "seed": 2}"#).replay(step).unwrap_err().to_string();
    assert!(e.contains("seed 1") && e.contains("seed 2"), "{e}");
}
