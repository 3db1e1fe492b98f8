use arrow::array::*;
use arrow::datatypes::{Field, Fields, Float64Type, Int32Type, IntervalMonthDayNano, TimeUnit};

use super::*;

/// One column of each type that a table can have: three values, one of them NULL.
fn columns() -> Vec<ArrayRef> {
    let mut lists = ListBuilder::new(Int32Builder::new());
    lists.append_value([Some(1), None]);
    lists.append_null();
    lists.append_value([]);
    let points = StructArray::new(
        Fields::from(vec![Field::new("x", DataType::Float64, true)]),
        vec![Arc::new(Float64Array::from(vec![Some(0.5), None, Some(-0.0)]))],
        None,
    );
    let mut maps = MapBuilder::new(None, StringBuilder::new(), Int32Builder::new());
    maps.keys().append_value("a");
    maps.values().append_value(1);
    maps.append(true).unwrap();
    maps.append(false).unwrap();
    maps.append(true).unwrap();
    vec![
        Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])),
        Arc::new(Int8Array::from(vec![Some(-1), None, Some(1)])),
        Arc::new(Int16Array::from(vec![Some(-1), None, Some(1)])),
        Arc::new(Int32Array::from(vec![Some(-1), None, Some(1)])),
        Arc::new(Int64Array::from(vec![Some(-1), None, Some(1)])),
        Arc::new(UInt8Array::from(vec![Some(1), None, Some(2)])),
        Arc::new(UInt16Array::from(vec![Some(1), None, Some(2)])),
        Arc::new(UInt32Array::from(vec![Some(1), None, Some(2)])),
        Arc::new(UInt64Array::from(vec![Some(1), None, Some(2)])),
        Arc::new(Float32Array::from(vec![Some(-1.5), None, Some(f32::NAN)])),
        Arc::new(Float64Array::from(vec![Some(-1.5), None, Some(f64::NAN)])),
        Arc::new(Decimal128Array::from(vec![Some(-12345), None, Some(1)]).with_precision_and_scale(10, 2).unwrap()),
        Arc::new(StringArray::from(vec![Some("backstay"), None, Some("")])),
        Arc::new(LargeStringArray::from(vec![
            Some("ü"),
            None,
            Some("a long text of more than thirty-two bytes, in blocks"),
        ])),
        Arc::new(BinaryArray::from(vec![Some(&[0u8, 255][..]), None, Some(&[])])),
        Arc::new(
            FixedSizeBinaryArray::try_from_sparse_iter_with_size([Some([1, 2]), None, Some([3, 4])].into_iter(), 2)
                .unwrap(),
        ),
        Arc::new(Date32Array::from(vec![Some(-1), None, Some(20000)])),
        Arc::new(Date64Array::from(vec![Some(-1), None, Some(20000)])),
        Arc::new(Time32MillisecondArray::from(vec![Some(1), None, Some(2)])),
        Arc::new(Time64MicrosecondArray::from(vec![Some(1), None, Some(2)])),
        Arc::new(TimestampMicrosecondArray::from(vec![Some(-1), None, Some(2)])),
        Arc::new(TimestampNanosecondArray::from(vec![Some(-1), None, Some(2)]).with_timezone("UTC")),
        Arc::new(DurationMillisecondArray::from(vec![Some(-1), None, Some(2)])),
        Arc::new(IntervalYearMonthArray::from(vec![Some(-1), None, Some(2)])),
        Arc::new(lists.finish()),
        Arc::new(points),
        Arc::new(maps.finish()),
        Arc::new(IntervalMonthDayNanoArray::from(vec![
            Some(IntervalMonthDayNano::new(1, -2, 3)),
            None,
            Some(IntervalMonthDayNano::ZERO),
        ])),
        Arc::new(DurationMicrosecondArray::from(vec![Some(-1), None, Some(2)])),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn every_type_has_its_golden_bytes() {
    let got: Vec<String> = columns()
        .iter()
        .map(|column| {
            let codec = RowCodec::new(&[column.data_type().clone()]).unwrap();
            let rows = codec.encode(&[normalise(column)], 3).unwrap();
            format!("{}: {} {} {}\n", column.data_type(), hex(rows.get(0)), hex(rows.get(1)), hex(rows.get(2)))
        })
        .collect();
    let golden = include_str!("golden.txt");
    assert_eq!(got.concat(), golden, "the encoding changed: stored state cannot be read; give it a new ROW_FORMAT");
}

#[test]
fn rows_come_back() {
    let columns: Vec<ArrayRef> = columns().iter().map(normalise).collect();
    let types: Vec<DataType> = columns.iter().map(|c| c.data_type().clone()).collect();
    for codec in [RowCodec::new(&types).unwrap(), RowCodec::descending(&types).unwrap()] {
        let rows = codec.encode(&columns, 3).unwrap();
        let back = codec.decode([2, 0, 1].map(|i| rows.get(i))).unwrap();
        let order = UInt32Array::from(vec![2, 0, 1]);
        for (column, back) in columns.iter().zip(back) {
            let expected = arrow::compute::take(column, &order, None).unwrap();
            // Compared by their bytes: NaN ≠ NaN in arrow's comparison.
            let codec = RowCodec::new(&[column.data_type().clone()]).unwrap();
            assert_eq!(back.data_type(), column.data_type());
            let (a, b) = (codec.encode(&[expected], 3).unwrap(), codec.encode(&[back], 3).unwrap());
            assert!((0..3).all(|i| a.get(i) == b.get(i)), "{}", column.data_type());
        }
    }
}

#[test]
fn bytes_compare_as_values_do() {
    let values: ArrayRef = Arc::new(Int32Array::from(vec![None, Some(i32::MIN), Some(-1), Some(0), Some(5)]));
    let up = RowCodec::new(&[DataType::Int32]).unwrap();
    let down = RowCodec::descending(&[DataType::Int32]).unwrap();
    let (rows, reverse) = (up.encode(std::slice::from_ref(&values), 5).unwrap(), down.encode(&[values], 5).unwrap());
    for i in 1..5 {
        assert!(rows.get(i - 1) < rows.get(i));
        assert!(reverse.get(i - 1) > reverse.get(i));
    }
    let back = down.decode([reverse.get(4)]).unwrap();
    assert_eq!(back[0].as_primitive::<Int32Type>().value(0), 5);
}

/// What sorted state is stored in: a change of these bytes is a change of format.
#[test]
fn every_direction_has_its_golden_bytes() {
    let types = [DataType::Int16, DataType::Utf8];
    let columns: [ArrayRef; 2] =
        [Arc::new(Int16Array::from(vec![Some(-2), None])), Arc::new(StringArray::from(vec![Some("ab"), None]))];
    let golden = [
        (false, true, "017ffe02616200000000000002", "00000000"),
        (false, false, "017ffe02616200000000000002", "ff0000ff"),
        (true, true, "018001fd9e9dfffffffffffffd", "00000000"),
        (true, false, "018001fd9e9dfffffffffffffd", "ff0000ff"),
    ];
    for (descending, nulls_first, value, null) in golden {
        let codec = RowCodec::ordered(&types.clone().map(|t| (t, SortOptions { descending, nulls_first }))).unwrap();
        let rows = codec.encode(&columns, 2).unwrap();
        assert_eq!((hex(rows.get(0)).as_str(), hex(rows.get(1)).as_str()), (value, null), "{descending} {nulls_first}");
        let back = codec.decode([rows.get(1), rows.get(0)]).unwrap();
        assert!(back.iter().all(|c| c.is_null(0) && c.is_valid(1)));
        assert_eq!(back[1].as_string::<i32>().value(1), "ab");
    }
}

#[test]
fn floats_are_normalised_inside_lists_and_structs() {
    let odd_nan = f64::from_bits(f64::NAN.to_bits() | 0x8000_0000_0000_0001);
    let build = |zero: f64, nan: f64| -> Vec<ArrayRef> {
        let mut lists = ListBuilder::new(Float64Builder::new());
        lists.append_value([Some(zero), Some(nan), None]);
        lists.append_null();
        let lists = Arc::new(lists.finish());
        let field = Field::new("l", lists.data_type().clone(), true);
        let structs = StructArray::new(Fields::from(vec![field]), vec![lists.clone()], None);
        vec![lists, Arc::new(structs), Arc::new(Float32Array::from(vec![zero as f32, nan as f32]))]
    };
    for (odd, plain) in build(-0.0, odd_nan).iter().zip(build(0.0, f64::NAN)) {
        let codec = RowCodec::new(&[odd.data_type().clone()]).unwrap();
        let (a, b) =
            (codec.encode(&[normalise(odd)], 2).unwrap(), codec.encode(std::slice::from_ref(&plain), 2).unwrap());
        let raw = codec.encode(std::slice::from_ref(odd), 2).unwrap();
        assert!((0..2).all(|i| a.get(i) == b.get(i)), "{}", odd.data_type());
        assert_ne!(raw.get(0), b.get(0), "{}: the test must see a difference", odd.data_type());
    }
    let values: ArrayRef = Arc::new(Float64Array::from(vec![None, Some(-0.0)]));
    assert!(normalise(&values).is_null(0));
    assert_eq!(normalise(&values).as_primitive::<Float64Type>().value(1).to_bits(), 0);
}

#[test]
fn misfits_are_errors() {
    let codec = RowCodec::new(&[DataType::Int64, DataType::Utf8]).unwrap();
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    assert!(codec.encode(std::slice::from_ref(&numbers), 1).is_err(), "too few columns");
    assert!(codec.encode(&[numbers.clone(), numbers], 1).is_err(), "another type");
    let utf8 = RowCodec::new(&[DataType::Utf8]).unwrap();
    let long = RowCodec::new(&[DataType::Timestamp(TimeUnit::Second, None)]).unwrap();
    assert_eq!((utf8.types().len(), long.types().len()), (1, 1));
}

#[test]
fn this_build_encodes_as_the_format_says() {
    self_check().unwrap();
}
