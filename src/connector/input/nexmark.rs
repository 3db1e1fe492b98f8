//! `nexmark`: the event stream of an auction house, after the Nexmark benchmark.
//!
//! Settings: `table` (`person`, `auction` or `bid`) and `options`: `events` (how many events there are, default 100,000,000), `seed` (default 1),
//! `events_per_second` (of the events' own time, default 10,000).
//!
//! Of 50 events in a row one is a person, 3 are auctions and 46 are bids. All connectors with the same `options` see the same events,
//! each those of its table; an offset is an event's ordinal. (Feldera's connectors share the options of one of them: here each has them.)
//!
//! | table | columns |
//! |---|---|
//! | person | id, name, emailAddress, creditCard, city, state, dateTime, extra |
//! | auction | id, itemName, description, initialBid, reserve, dateTime, expires, seller, category, extra |
//! | bid | auction, bidder, price, channel, url, dateTime, extra |
//!
//! id, seller, auction, bidder, category, initialBid, reserve and price are BIGINT, dateTime and expires TIMESTAMP, the rest VARCHAR; other types are cast to. A table may
//! have any of the columns, in any order, whatever their case and underscores.
//!
//! Invariant: every value is a function of (seed, ordinal, column), in integer arithmetic.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, StringBuilder, TimestampMicrosecondArray};
use arrow::compute::{CastOptions, can_cast_types, cast_with_options};
use arrow::datatypes::{DataType, SchemaRef, TimeUnit};

use super::super::config::ConnectorConfig;
use super::super::options::{Options, suggestion};
use super::super::{ConnectorError, Context, Result};
use super::generator::{Generator, GeneratorInput};
use super::random::{below, letters, random};

/// Counted up when the same options give other rows.
const VERSION: u32 = 1;

/// Events in a row of which the proportions hold.
const ROUND: u64 = 50;
const PERSONS: u64 = 1;
const AUCTIONS: u64 = 3;
const FIRST_PERSON: u64 = 1000;
const FIRST_AUCTION: u64 = 1000;
const FIRST_CATEGORY: u64 = 10;
const CATEGORIES: u64 = 5;
/// People that are active, and auctions that are open, at a time.
const ACTIVE_PERSONS: u64 = 1000;
const OPEN_AUCTIONS: u64 = 100;
/// How far ids may run ahead of what has been announced.
const LEAD: u64 = 10;
/// One id of so many is hot for a while.
const HOT_SPAN: u64 = 100;
/// 2015-07-15T00:00:00Z in microseconds.
const BASE_TIME: i64 = 1_436_918_400_000_000;

const FIRST_NAMES: [&str; 11] =
    ["Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter"];
const LAST_NAMES: [&str; 9] = ["Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris"];
const CITIES: [&str; 10] =
    ["Phoenix", "Los Angeles", "San Francisco", "Boise", "Portland", "Bend", "Redmond", "Seattle", "Kent", "Cheyenne"];
const STATES: [&str; 6] = ["AZ", "CA", "ID", "OR", "WA", "WY"];
const CHANNELS: [&str; 4] = ["Google", "Facebook", "Baidu", "Apple"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Table {
    Person,
    Auction,
    Bid,
}

/// A column of one of the tables. Its number keeps its random numbers apart from the others'.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Id = 1,
    Name,
    EmailAddress,
    CreditCard,
    City,
    State,
    DateTime,
    Extra,
    ItemName,
    Description,
    InitialBid,
    Reserve,
    Expires,
    Seller,
    Category,
    Auction,
    Bidder,
    Price,
    Channel,
    Url,
}

const PERSON_COLUMNS: &[(&str, Column)] = &[
    ("id", Column::Id),
    ("name", Column::Name),
    ("emailAddress", Column::EmailAddress),
    ("creditCard", Column::CreditCard),
    ("city", Column::City),
    ("state", Column::State),
    ("dateTime", Column::DateTime),
    ("extra", Column::Extra),
];
const AUCTION_COLUMNS: &[(&str, Column)] = &[
    ("id", Column::Id),
    ("itemName", Column::ItemName),
    ("description", Column::Description),
    ("initialBid", Column::InitialBid),
    ("reserve", Column::Reserve),
    ("dateTime", Column::DateTime),
    ("expires", Column::Expires),
    ("seller", Column::Seller),
    ("category", Column::Category),
    ("extra", Column::Extra),
];
const BID_COLUMNS: &[(&str, Column)] = &[
    ("auction", Column::Auction),
    ("bidder", Column::Bidder),
    ("price", Column::Price),
    ("channel", Column::Channel),
    ("url", Column::Url),
    ("dateTime", Column::DateTime),
    ("extra", Column::Extra),
];

impl Table {
    fn columns(self) -> &'static [(&'static str, Column)] {
        match self {
            Self::Person => PERSON_COLUMNS,
            Self::Auction => AUCTION_COLUMNS,
            Self::Bid => BID_COLUMNS,
        }
    }

    /// Its places in a round.
    fn places(self) -> std::ops::Range<u64> {
        match self {
            Self::Person => 0..PERSONS,
            Self::Auction => PERSONS..PERSONS + AUCTIONS,
            Self::Bid => PERSONS + AUCTIONS..ROUND,
        }
    }
}

/// The events of one table.
#[derive(Debug)]
pub(crate) struct Nexmark {
    connector: String,
    schema: SchemaRef,
    table: Table,
    columns: Vec<Column>,
    seed: u64,
    events: u64,
    per_second: u64,
    identity: String,
}

/// Makes the input of a `nexmark` connector.
pub(crate) fn new(config: &ConnectorConfig, ctx: &Context) -> Result<GeneratorInput<Nexmark>> {
    Nexmark::new(config, ctx).map(GeneratorInput::new)
}

impl Nexmark {
    fn new(config: &ConnectorConfig, ctx: &Context) -> Result<Self> {
        let place = "transport.config of nexmark";
        let config = Options::new(&ctx.name, place, &config.transport.config, &["table", "options"], &[])?;
        let (table, name) = match config.require_string("table")? {
            "person" => (Table::Person, "person"),
            "auction" => (Table::Auction, "auction"),
            "bid" => (Table::Bid, "bid"),
            other => return Err(config.unknown("table", other, &["person", "auction", "bid"])),
        };
        let null = serde_json::Value::Null;
        let options = Options::new(
            &ctx.name,
            "transport.config.options of nexmark",
            config.value("options").unwrap_or(&null),
            &["events", "seed", "events_per_second"],
            &["threads", "batch_size_per_thread", "max_step_size_per_thread", "synchronize_threads"],
        )?;
        let seed = options.u64("seed")?.unwrap_or(1);
        let per_second = options.u64("events_per_second")?.unwrap_or(10_000);
        if per_second == 0 {
            return Err(options.error("\"events_per_second\" is 0; time must go on"));
        }
        let mut columns = Vec::new();
        for field in ctx.schema.fields() {
            let simple = |s: &str| s.replace('_', "").to_lowercase();
            let found = table.columns().iter().find(|(n, _)| simple(n) == simple(field.name()));
            let Some((_, column)) = found else {
                let names: Vec<&str> = table.columns().iter().map(|(n, _)| *n).collect();
                let message =
                    format!("nexmark's {name} has no column {}; {}", field.name(), suggestion(field.name(), &names));
                return Err(ConnectorError::new(&ctx.name, message));
            };
            let made = match column {
                Column::DateTime | Column::Expires => DataType::Timestamp(TimeUnit::Microsecond, None),
                Column::Id
                | Column::InitialBid
                | Column::Reserve
                | Column::Seller
                | Column::Category
                | Column::Auction
                | Column::Bidder
                | Column::Price => DataType::Int64,
                _ => DataType::Utf8,
            };
            if !can_cast_types(&made, field.data_type()) || (made == DataType::Utf8) != is_text(field.data_type()) {
                let message =
                    format!("nexmark's column {} is {made}, which cannot become {}", field.name(), field.data_type());
                return Err(ConnectorError::new(&ctx.name, message));
            }
            columns.push(*column);
        }
        Ok(Self {
            connector: ctx.name.clone(),
            schema: ctx.schema.clone(),
            table,
            columns,
            seed,
            events: options.u64("events")?.unwrap_or(100_000_000),
            per_second,
            identity: format!("nexmark {VERSION} {name} seed {seed} events_per_second {per_second}"),
        })
    }

    fn random(&self, ordinal: u64, column: Column, part: u64) -> u64 {
        random(self.seed, ordinal, column as u64 * 16 + part)
    }

    fn time(&self, ordinal: u64) -> i64 {
        let since = u128::from(ordinal) * 1_000_000 / u128::from(self.per_second);
        BASE_TIME.saturating_add(i64::try_from(since).unwrap_or(i64::MAX))
    }

    /// A price: as many small ones as great ones, from 1.00 to 1,000,000.00, in cents.
    fn price(&self, ordinal: u64, column: Column) -> u64 {
        let scale = 10u64.pow(below(self.random(ordinal, column, 0), 6) as u32 + 2);
        scale + below(self.random(ordinal, column, 1), 9 * scale)
    }

    fn letters(&self, out: &mut String, ordinal: u64, column: Column, least: u64, most: u64) {
        let len = least + below(self.random(ordinal, column, 0), most - least + 1);
        letters(out, self.seed, ordinal, column as u64, len);
    }

    fn number(&self, ordinal: u64, column: Column) -> u64 {
        match (column, self.table) {
            (Column::Id, Table::Person) => FIRST_PERSON + last_person(ordinal),
            (Column::Id, _) => FIRST_AUCTION + last_auction(ordinal).unwrap_or(0),
            (Column::InitialBid, _) => self.price(ordinal, Column::InitialBid),
            (Column::Reserve, _) => self.price(ordinal, Column::InitialBid) + self.price(ordinal, Column::Reserve),
            (Column::Category, _) => FIRST_CATEGORY + below(self.random(ordinal, column, 0), CATEGORIES),
            (Column::Price, _) => self.price(ordinal, column),
            (Column::Seller | Column::Bidder, _) => {
                let last = last_person(ordinal);
                // Three of four are the hot one; bidders' differ from sellers'.
                if below(self.random(ordinal, column, 0), 4) > 0 {
                    return FIRST_PERSON + last / HOT_SPAN * HOT_SPAN + u64::from(column == Column::Bidder);
                }
                let active = (last + 1).min(ACTIVE_PERSONS);
                FIRST_PERSON + (last + 1 - active) + below(self.random(ordinal, column, 1), active + LEAD)
            }
            _ => {
                let last = last_auction(ordinal).unwrap_or(0);
                // Half the bids go to the hot auction.
                if below(self.random(ordinal, column, 0), 2) > 0 {
                    return FIRST_AUCTION + last / HOT_SPAN * HOT_SPAN;
                }
                let least = last.saturating_sub(OPEN_AUCTIONS);
                FIRST_AUCTION + least + below(self.random(ordinal, column, 1), last - least + 1 + LEAD)
            }
        }
    }

    fn text(&self, out: &mut String, ordinal: u64, column: Column) {
        let part = |n| self.random(ordinal, column, n);
        match column {
            Column::Name => {
                let _ = write!(out, "{} {}", pick(part(0), &FIRST_NAMES), pick(part(1), &LAST_NAMES));
            }
            Column::EmailAddress => {
                self.letters(out, ordinal, Column::EmailAddress, 3, 7);
                out.push('@');
                letters(out, self.seed, ordinal, Column::EmailAddress as u64 + 100, 3 + below(part(1), 5));
                out.push_str(".com");
                // Letters have spaces among them.
                *out = out.replace(' ', "-");
            }
            Column::CreditCard => {
                for i in 0..4 {
                    let gap = if i == 0 { "" } else { " " };
                    let _ = write!(out, "{gap}{:04}", below(part(i), 10_000));
                }
            }
            Column::City => out.push_str(pick(part(0), &CITIES)),
            Column::State => out.push_str(pick(part(0), &STATES)),
            Column::ItemName => self.letters(out, ordinal, column, 3, 20),
            Column::Description => self.letters(out, ordinal, column, 20, 100),
            Column::Channel | Column::Url => {
                // Half the bids come through one of four hot channels.
                let number = below(self.random(ordinal, Column::Channel, 1), 10_000);
                let hot = below(self.random(ordinal, Column::Channel, 0), 2) > 0;
                let name = pick(self.random(ordinal, Column::Channel, 2), &CHANNELS);
                let _ = match (column, hot) {
                    (Column::Channel, true) => write!(out, "{name}"),
                    (Column::Channel, false) => write!(out, "channel-{number}"),
                    (_, true) => write!(out, "https://www.nexmark.com/{}/item.htm?query=1", name.to_lowercase()),
                    (_, false) => {
                        let path = number.wrapping_mul(2_654_435_761) & 0xffff_ffff;
                        write!(out, "https://www.nexmark.com/{path:08x}/item.htm?query=1&channel_id={number}")
                    }
                };
            }
            _ => {
                let (least, most) = match self.table {
                    Table::Person => (60, 120),
                    Table::Auction => (250, 450),
                    Table::Bid => (20, 60),
                };
                self.letters(out, ordinal, column, least, most);
            }
        }
    }

    fn column(&self, ordinals: &[u64], column: Column) -> ArrayRef {
        match column {
            Column::DateTime => {
                Arc::new(TimestampMicrosecondArray::from_iter_values(ordinals.iter().map(|o| self.time(*o))))
            }
            Column::Expires => {
                // About twice as long as it takes for as many auctions as are open at a time to begin.
                let horizon = self.time(OPEN_AUCTIONS * ROUND / AUCTIONS) - BASE_TIME;
                let length = |o| 1 + below(self.random(o, column, 0), 2 * horizon.max(1).unsigned_abs());
                let expires = |o: &u64| self.time(*o).saturating_add_unsigned(length(*o));
                Arc::new(TimestampMicrosecondArray::from_iter_values(ordinals.iter().map(expires)))
            }
            Column::Id
            | Column::InitialBid
            | Column::Reserve
            | Column::Seller
            | Column::Category
            | Column::Auction
            | Column::Bidder
            | Column::Price => {
                let number = |o: &u64| i64::try_from(self.number(*o, column)).unwrap_or(i64::MAX);
                Arc::new(Int64Array::from_iter_values(ordinals.iter().map(number)))
            }
            _ => {
                let mut builder = StringBuilder::with_capacity(ordinals.len(), ordinals.len() * 32);
                let mut text = String::new();
                for ordinal in ordinals {
                    text.clear();
                    self.text(&mut text, *ordinal, column);
                    builder.append_value(&text);
                }
                Arc::new(builder.finish()) as Arc<StringArray>
            }
        }
    }
}

impl Generator for Nexmark {
    fn connector(&self) -> &str {
        &self.connector
    }

    fn identity(&self) -> &str {
        &self.identity
    }

    fn end(&self) -> Option<u64> {
        Some(self.events)
    }

    fn select(&self, from: u64, to: u64, most: usize) -> Vec<u64> {
        let mut ordinals = Vec::new();
        let mut round = from / ROUND * ROUND;
        while round < to && ordinals.len() < most {
            let places = self.table.places().map(|p| round.saturating_add(p));
            ordinals.extend(places.filter(|o| (from..to).contains(o)).take(most - ordinals.len()));
            round = round.saturating_add(ROUND);
        }
        ordinals
    }

    fn rows(&self, ordinals: &[u64]) -> Result<RecordBatch> {
        let strict = CastOptions { safe: false, ..CastOptions::default() };
        let made = self.columns.iter().zip(self.schema.fields()).map(|(column, field)| {
            let array = self.column(ordinals, *column);
            if array.data_type() == field.data_type() {
                Ok(array)
            } else {
                cast_with_options(&array, field.data_type(), &strict)
            }
        });
        let fail = |e| {
            ConnectorError::new(
                &self.connector,
                format!("a generated value does not fit its column: {e}; use BIGINT, VARCHAR and TIMESTAMP"),
            )
        };
        let arrays = made.collect::<Result<Vec<_>, _>>().map_err(fail)?;
        RecordBatch::try_new(Arc::clone(&self.schema), arrays).map_err(fail)
    }
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn pick<'a>(random: u64, names: &[&'a str]) -> &'a str {
    names.get(below(random, names.len() as u64) as usize).copied().unwrap_or_default()
}

/// The number of the last person up to an event, that event included.
fn last_person(ordinal: u64) -> u64 {
    ordinal / ROUND
}

/// The number of the last auction up to an event, that event included; the first event is before any.
fn last_auction(ordinal: u64) -> Option<u64> {
    let begun = (ordinal % ROUND + 1).saturating_sub(PERSONS).min(AUCTIONS);
    (ordinal / ROUND * AUCTIONS + begun).checked_sub(1)
}

#[cfg(test)]
mod tests;
