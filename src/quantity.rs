//! Storage quantities as Kubernetes writes them, `10Gi`, `1.5T`, `1e9`, in comparable form.

use std::{cmp::Ordering, fmt, str::FromStr};

/// A number of bytes that remembers how it was written. Equality and order compare the numbers.
#[derive(Clone, Debug)]
pub struct Bytes {
    text: String,
    /// Rounded up to whole bytes, as the API server does with storage.
    number: u128,
}

impl Bytes {
    /// Returns the number of bytes, rounded up.
    pub fn number(&self) -> u128 {
        self.number
    }
}

impl PartialEq for Bytes {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Bytes {}

impl PartialOrd for Bytes {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Bytes {
    fn cmp(&self, other: &Self) -> Ordering {
        self.number.cmp(&other.number)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A text that is no amount of storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not an amount of storage above zero; accepted are bytes or a number with its unit, e.g. 10Gi, 500Mi or 1.5T"
)]
pub struct NoAmount;

impl FromStr for Bytes {
    type Err = NoAmount;

    fn from_str(text: &str) -> Result<Self, NoAmount> {
        match number(text.trim()) {
            Some(number) if number > 0 => Ok(Bytes { text: text.trim().to_owned(), number }),
            _ => Err(NoAmount),
        }
    }
}

/// Parses a quantity into bytes. Returns `None` if it is invalid or overflows.
fn number(text: &str) -> Option<u128> {
    let end = text.find(|character: char| !character.is_ascii_digit() && character != '.');
    let (digits, unit) = text.split_at(end.unwrap_or(text.len()));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') || digits.len() > 20 {
        return None;
    }
    let mantissa: u128 = format!("{whole}{fraction}").parse().ok()?;
    let (times, divided) = scale(unit)?;
    let divided = divided.checked_mul(10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?)?;
    Some(mantissa.checked_mul(times)?.div_ceil(divided))
}

/// Returns the factor and the divisor of a unit.
fn scale(unit: &str) -> Option<(u128, u128)> {
    let decimal = |power: u32| 10_u128.checked_pow(power);
    Some(match unit {
        "" => (1, 1),
        "n" => (1, decimal(9)?),
        "u" => (1, decimal(6)?),
        "m" => (1, decimal(3)?),
        "k" => (decimal(3)?, 1),
        "M" => (decimal(6)?, 1),
        "G" => (decimal(9)?, 1),
        "T" => (decimal(12)?, 1),
        "P" => (decimal(15)?, 1),
        "E" => (decimal(18)?, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        exponent => {
            let power: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            match u32::try_from(power) {
                Ok(power) if power <= 18 => (decimal(power)?, 1),
                Err(_) if power >= -18 => (1, decimal(power.unsigned_abs())?),
                _ => return None,
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantities_are_bytes() {
        for (text, bytes) in [
            ("1", 1),
            ("1Gi", 1 << 30),
            ("1.5Ki", 1536),
            ("0.5Gi", 1 << 29),
            (".5Gi", 1 << 29),
            ("5.Gi", 5 << 30),
            ("500M", 500_000_000),
            ("1e9", 1_000_000_000),
            ("15E-1", 2),
            ("1500m", 2),
            ("1n", 1),
            ("7E", 7_000_000_000_000_000_000),
            ("1Ei", 1 << 60),
            (" 2Ti ", 2 << 40),
        ] {
            assert_eq!(text.parse::<Bytes>().map(|bytes| bytes.number()), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "0",
            "0Gi",
            "Gi",
            ".",
            "1.2.3",
            "-1Gi",
            "1gi",
            "1GB",
            "ten",
            "1e",
            "1e99",
            "1e-99",
            "9".repeat(30).as_str(),
        ] {
            assert!(
                text.parse::<Bytes>().is_err_and(|error| error.to_string().contains("e.g. 10Gi")),
                "{text}"
            );
        }
    }

    #[test]
    fn the_larger_of_two_is_larger_whatever_their_units() {
        let bytes = |text: &str| text.parse::<Bytes>().expect(text);
        assert!(bytes("1Gi") > bytes("1G"));
        assert!(bytes("1024Mi") == bytes("1Gi"));
        assert!(bytes("9Gi") < bytes("10Gi"));
        assert_eq!(bytes("9Gi").max(bytes("10Gi")).to_string(), "10Gi");
    }

    proptest! {
        #[test]
        fn any_text_is_an_amount_or_an_error(text in "\\PC{0,30}") {
            let _ = text.parse::<Bytes>();
        }

        #[test]
        fn whole_numbers_are_themselves(number in 1_u64..) {
            prop_assert_eq!(number.to_string().parse::<Bytes>().map(|bytes| bytes.number()), Ok(number.into()));
        }
    }
}
