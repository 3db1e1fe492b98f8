//! Parameters of a statement as literals of our SQL: a text that a client gave never becomes anything but a value.

use pgwire::api::Type;
use pgwire::api::portal::Portal;
use pgwire::error::PgWireResult;

use super::error;
use super::statement::Statement;
use crate::sql::quoted_text;

/// From 1970 to 2000, where PostgreSQL's binary times begin, in µs.
const EPOCH_2000_US: i64 = 946_684_800_000_000;
const DAY_US: i64 = 86_400_000_000;

/// The literals of a portal's parameters.
///
/// # Errors
/// One is missing, malformed, or of a type that is not taken in the format that it is in.
pub(super) fn literals(portal: &Portal<Statement>) -> PgWireResult<Vec<String>> {
    let given = &portal.parameters;
    let needed = portal.statement.statement.parameters();
    if given.len() < needed {
        return Err(error("08P01", format!("{} parameters were given, {needed} are needed", given.len())));
    }
    let literal = |(i, value): (usize, &Option<bytes::Bytes>)| {
        let declared = portal.statement.parameter_types.get(i).cloned().flatten().unwrap_or(Type::UNKNOWN);
        let Some(value) = value else { return Ok(null(&declared)) };
        let is_binary = format_of(&portal.parameter_format, i, given.len())?;
        let literal = if is_binary { binary(&declared, value) } else { text(&declared, value) };
        literal.map_err(|why| error("22P02", format!("parameter ${} of type {}: {why}", i + 1, declared.name())))
    };
    given.iter().enumerate().map(literal).collect()
}

/// Whether the value or column `i` of `count` is binary.
pub(super) fn format_of(format: &pgwire::api::portal::Format, i: usize, count: usize) -> PgWireResult<bool> {
    use pgwire::api::portal::Format;
    match format {
        Format::Individual(codes) if codes.len() != count => {
            Err(error("08P01", format!("{} formats were given for {count} values", codes.len())))
        }
        _ => Ok(format.is_binary(i)),
    }
}

/// Literals for the columns' types to be found out before there are values.
pub(super) fn unknown(declared: &[Option<Type>], count: usize) -> Vec<String> {
    (0..count).map(|i| null(&declared.get(i).cloned().flatten().unwrap_or(Type::UNKNOWN))).collect()
}

fn null(declared: &Type) -> String {
    match sql_type(declared) {
        Some(name) => format!("CAST(NULL AS {name})"),
        None => "NULL".to_owned(),
    }
}

/// The name of a type in our SQL; nothing of a type that a literal takes from where it stands.
fn sql_type(declared: &Type) -> Option<&'static str> {
    Some(match *declared {
        Type::BOOL => "BOOLEAN",
        Type::INT2 => "SMALLINT",
        Type::INT4 => "INT",
        Type::INT8 => "BIGINT",
        Type::FLOAT4 => "REAL",
        Type::FLOAT8 => "DOUBLE",
        Type::DATE => "DATE",
        Type::TIME => "TIME",
        Type::TIMESTAMP | Type::TIMESTAMPTZ => "TIMESTAMP",
        Type::BYTEA => "VARBINARY",
        _ => return None,
    })
}

/// A text as a value of the type.
fn cast(declared: &Type, text: &str) -> String {
    match sql_type(declared) {
        Some(name) => format!("CAST({} AS {name})", quoted_text(text)),
        None => quoted_text(text),
    }
}

/// What a client wrote as text.
fn text(declared: &Type, value: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(value).map_err(|_| "it is not UTF-8".to_owned())?;
    if text.contains('\0') {
        return Err("it has a zero byte in it".to_owned());
    }
    match *declared {
        Type::BOOL => match text.to_ascii_lowercase().as_str() {
            "t" | "true" | "1" | "on" | "yes" | "y" => Ok("TRUE".to_owned()),
            "f" | "false" | "0" | "off" | "no" | "n" => Ok("FALSE".to_owned()),
            _ => Err(format!("\"{text}\" is neither true nor false")),
        },
        // As a number in the text would be, so that its digits decide its type.
        Type::NUMERIC => {
            let digits = text.strip_prefix('-').unwrap_or(text);
            let is_number = digits.starts_with(|c: char| c.is_ascii_digit())
                && digits.chars().filter(|c| *c == '.').count() <= 1
                && digits.chars().all(|c| c.is_ascii_digit() || c == '.');
            if is_number { Ok(text.to_owned()) } else { Err(format!("\"{text}\" is no number")) }
        }
        Type::BYTEA => match text.strip_prefix("\\x") {
            Some(hex) if hex.len() % 2 == 0 && hex.bytes().all(|b| b.is_ascii_hexdigit()) => Ok(format!("X'{hex}'")),
            _ => Err("bytes are written as \\x and hexadecimal digits".to_owned()),
        },
        Type::TIMESTAMPTZ => {
            // A zone is not for the SQL's type, which has none: what is meant is the same moment in UTC.
            let moment = text.replacen(' ', "T", 1).parse::<jiff::Timestamp>().or_else(|_| text.parse());
            Ok(cast(declared, &moment.map_or_else(|_| text.to_owned(), civil)))
        }
        _ => Ok(cast(declared, text)),
    }
}

fn civil(moment: jiff::Timestamp) -> String {
    moment.to_zoned(jiff::tz::TimeZone::UTC).datetime().to_string()
}

/// What a client sent in PostgreSQL's binary form.
fn binary(declared: &Type, value: &[u8]) -> Result<String, String> {
    fn array<const N: usize>(value: &[u8]) -> Result<[u8; N], String> {
        value.try_into().map_err(|_| format!("{} bytes, where {N} are expected", value.len()))
    }
    let cast = |text: String| cast(declared, &text);
    Ok(match *declared {
        Type::BOOL => if array::<1>(value)? == [0] { "FALSE" } else { "TRUE" }.to_owned(),
        Type::INT2 => cast(i16::from_be_bytes(array(value)?).to_string()),
        Type::INT4 => cast(i32::from_be_bytes(array(value)?).to_string()),
        Type::INT8 => cast(i64::from_be_bytes(array(value)?).to_string()),
        Type::FLOAT4 => cast(f32::from_be_bytes(array(value)?).to_string()),
        Type::FLOAT8 => cast(f64::from_be_bytes(array(value)?).to_string()),
        Type::DATE => {
            let days = i64::from(i32::from_be_bytes(array(value)?));
            let moment = days.checked_mul(DAY_US).and_then(|us| us.checked_add(EPOCH_2000_US));
            cast(moment_of(moment)?.to_zoned(jiff::tz::TimeZone::UTC).date().to_string())
        }
        Type::TIMESTAMP | Type::TIMESTAMPTZ => {
            cast(civil(moment_of(i64::from_be_bytes(array(value)?).checked_add(EPOCH_2000_US))?))
        }
        Type::BYTEA => format!("X'{}'", value.iter().map(|b| format!("{b:02x}")).collect::<String>()),
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::UNKNOWN => text(declared, value)?,
        _ => return Err("it is not taken in binary form: send it as text".to_owned()),
    })
}

fn moment_of(us: Option<i64>) -> Result<jiff::Timestamp, String> {
    us.and_then(|us| jiff::Timestamp::from_microsecond(us).ok()).ok_or_else(|| "out of the range of time".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_values_whatever_they_say() {
        assert_eq!(text(&Type::UNKNOWN, b"'; DROP TABLE x; --").unwrap(), "'''; DROP TABLE x; --'");
        assert_eq!(text(&Type::INT4, b"7) OR (1=1").unwrap(), "CAST('7) OR (1=1' AS INT)");
        assert_eq!(text(&Type::NUMERIC, b"-12.50").unwrap(), "-12.50");
        for wrong in ["", "-", ".5", "1.2.3", "1e5", "1; DROP", "NaN"] {
            assert!(text(&Type::NUMERIC, wrong.as_bytes()).is_err(), "{wrong}");
        }
        assert!(text(&Type::TEXT, b"\xff").is_err() && text(&Type::BYTEA, b"\\x0").is_err());
        assert_eq!(
            text(&Type::TIMESTAMPTZ, b"2024-05-01 12:00:00+02:00").unwrap(),
            "CAST('2024-05-01T10:00:00' AS TIMESTAMP)"
        );
    }

    #[test]
    fn binary_values() {
        assert_eq!(binary(&Type::INT8, &(-5_i64).to_be_bytes()).unwrap(), "CAST('-5' AS BIGINT)");
        assert_eq!(binary(&Type::DATE, &366_i32.to_be_bytes()).unwrap(), "CAST('2001-01-01' AS DATE)");
        assert_eq!(
            binary(&Type::TIMESTAMP, &1_500_000_i64.to_be_bytes()).unwrap(),
            "CAST('2000-01-01T00:00:01.5' AS TIMESTAMP)"
        );
        assert_eq!(binary(&Type::BYTEA, &[0, 255]).unwrap(), "X'00ff'");
        assert!(binary(&Type::INT4, &[0; 3]).is_err() && binary(&Type::NUMERIC, &[0; 8]).is_err());
        assert!(binary(&Type::TIMESTAMP, &i64::MAX.to_be_bytes()).is_err());
    }
}
