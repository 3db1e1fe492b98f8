//! Debezium's change events in Avro: the rows that they are.

use std::collections::BTreeMap;

use arrow::array::{Array as _, ArrayRef, AsArray as _, BooleanArray};
use arrow::compute::kernels::cmp::distinct;
use arrow::compute::{cast, concat};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;

use super::super::columns::chosen;
use super::decode::Writer;
use super::{Avro, Rows};
use arrow::array::RecordBatch;

/// What is said of an event that has no old row.
const NO_BEFORE: &str = "\"before\" is missing or null, so that nothing says which row it was: let the database send whole old rows (PostgreSQL: REPLICA IDENTITY \
     FULL), or give the table a PRIMARY KEY";

/// One side of events: the table's columns, and what is wrong with some rows.
struct Image {
    columns: Vec<ArrayRef>,
    wrong: BTreeMap<usize, String>,
    is_there: Vec<bool>,
}

impl Avro {
    /// The rows of events; an event is taken whole or not at all.
    pub(super) fn events(
        &self,
        writer: &Writer,
        batch: &RecordBatch,
        wrong: &mut BTreeMap<usize, String>,
    ) -> Result<Rows, ArrowError> {
        let Some(event) = &writer.event else { return Err(ArrowError::SchemaError("no events".to_owned())) };
        let count = batch.num_rows();
        let part = |place: usize| {
            batch.columns().get(place).cloned().ok_or_else(|| ArrowError::SchemaError("no such field".to_owned()))
        };
        let ops = cast(&part(event.op)?, &DataType::Utf8)?;
        let ops = ops.as_string::<i32>();
        let after = self.image(writer, &part(event.after)?, false)?;
        let before = match event.before {
            Some(place) => self.image(writer, &part(place)?, true)?,
            None => Image { columns: after.columns.clone(), wrong: BTreeMap::new(), is_there: vec![false; count] },
        };
        let is_keyed = !self.primary_key.is_empty();
        let moved = self.moved(&before, &after)?;
        // Rows of `before` are numbered as they stand, those of `after` behind them.
        let (mut places, mut weights, mut records) = (Vec::new(), Vec::new(), Vec::new());
        for i in 0..count {
            let has = |image: &Image| image.is_there.get(i).copied().unwrap_or(false);
            let sides: Result<(bool, bool), String> = match ops.is_valid(i).then(|| ops.value(i)) {
                Some("c" | "r") => Ok((false, true)),
                Some("u" | "d") if self.append_only => {
                    Err("an update or delete, but the table is append-only".to_owned())
                }
                Some("u") if is_keyed => Ok((has(&before) && moved.value(i), true)),
                Some("u") => Ok((true, true)),
                Some("d") => Ok((true, false)),
                other => Err(format!("expected the \"op\" c, r, u or d, got \"{}\"", other.unwrap_or("null"))),
            };
            let sides = sides.and_then(|(old, new)| match (old, new) {
                (true, _) if !has(&before) => Err(NO_BEFORE.to_owned()),
                (_, true) if !has(&after) => Err("\"after\" is missing or null".to_owned()),
                sides => Ok(sides),
            });
            let told = |image: &Image, wanted: bool| image.wrong.get(&i).filter(|_| wanted).cloned();
            let sides = sides
                .and_then(|(old, new)| told(&before, old).or_else(|| told(&after, new)).map_or(Ok((old, new)), Err));
            match sides {
                Err(why) => drop(wrong.insert(i, why)),
                Ok((old, new)) => {
                    for (_, place, weight) in [(old, i, -1), (new, count + i, 1)].into_iter().filter(|side| side.0) {
                        places.push(place);
                        weights.push(weight);
                        records.push(i);
                    }
                }
            }
        }
        let both = before.columns.iter().zip(&after.columns).map(|(a, b)| concat(&[a, b]));
        Ok(Rows { batch: chosen(&self.table, both.collect::<Result<_, _>>()?, &places)?, weights, records })
    }

    /// One side's rows. Of an old one a table with a key needs the key only.
    fn image(&self, writer: &Writer, part: &ArrayRef, is_old: bool) -> Result<Image, ArrowError> {
        let rows =
            part.as_struct_opt().ok_or_else(|| ArrowError::SchemaError("an event's row is no record".to_owned()))?;
        let count = part.len();
        let (all, mut wrong) = (BooleanArray::from(vec![true; count]), BTreeMap::new());
        let by_key = (is_old && !self.primary_key.is_empty()).then_some((&all, self.primary_key.as_slice()));
        let columns = writer.columns.take(rows.columns(), count, by_key, &mut wrong)?;
        Ok(Image { columns, wrong, is_there: (0..count).map(|i| part.is_valid(i)).collect() })
    }

    /// Whether events change the key.
    fn moved(&self, before: &Image, after: &Image) -> Result<BooleanArray, ArrowError> {
        let mut moved = BooleanArray::from(vec![false; before.is_there.len()]);
        for key in &self.primary_key {
            if let (Some(old), Some(new)) = (before.columns.get(*key), after.columns.get(*key)) {
                moved = arrow::compute::or(&moved, &distinct(old, new)?)?;
            }
        }
        Ok(moved)
    }
}
