//! Amounts in Kubernetes notation: `500m` or `2` CPUs, `512Mi` or `1G` bytes.
//!
//! A value is kept as a number and shown in its shortest exact form, so that `1024Mi` and `1Gi` are the same. Of Kubernetes'
//! notations `E`, `P` and exponents (`1e3`) are not accepted.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

const CPU_FORM: &str = "must be a number of processors such as \"500m\", \"0.5\" or \"2\"";
const BYTES_FORM: &str = "must be a number of bytes such as \"512Mi\", \"2Gi\" or \"1G\"";
/// Most digits of a plain number, before a decimal point or unit, and after the point.
const PLAIN: usize = 18;
const BEFORE: usize = 6;
const BEHIND: usize = 3;

/// Suffixes of bytes, smallest first.
const UNITS: [(&str, u64); 8] = [
    ("k", 1000),
    ("Ki", 1 << 10),
    ("M", 1_000_000),
    ("Mi", 1 << 20),
    ("G", 1_000_000_000),
    ("Gi", 1 << 30),
    ("T", 1_000_000_000_000),
    ("Ti", 1 << 40),
];

/// An amount that cannot be parsed; says what a valid one looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotAQuantity(&'static str);

/// CPUs, in thousandths; at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cpu(u64);

/// Bytes; at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Bytes(u64);

impl Cpu {
    /// Thousandths of a CPU.
    #[must_use]
    pub fn millis(self) -> u64 {
        self.0
    }
}

impl Bytes {
    /// This many bytes; at least one.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        Self(bytes.max(1))
    }
    /// The number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }
}

impl FromStr for Cpu {
    type Err = NotAQuantity;

    fn from_str(text: &str) -> Result<Self, NotAQuantity> {
        let wrong = NotAQuantity(CPU_FORM);
        let millis = match text.strip_suffix('m') {
            Some(millis) => whole(millis, BEFORE).ok_or(wrong)?,
            None => u64::try_from(thousandths(text).ok_or(wrong)?).map_err(|_| wrong)?,
        };
        if (1..1_000_000).contains(&millis) { Ok(Self(millis)) } else { Err(wrong) }
    }
}

impl FromStr for Bytes {
    type Err = NotAQuantity;

    fn from_str(text: &str) -> Result<Self, NotAQuantity> {
        let wrong = NotAQuantity(BYTES_FORM);
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let bytes = match &text[digits.len()..] {
            "" => u128::from(whole(digits, PLAIN).ok_or(wrong)?),
            suffix => {
                let (_, unit) = UNITS.iter().find(|(name, _)| *name == suffix).ok_or(wrong)?;
                // Rounded up, as Kubernetes does.
                (thousandths(digits).ok_or(wrong)? * u128::from(*unit)).div_ceil(1000)
            }
        };
        match u64::try_from(bytes) {
            Ok(bytes) if (1..=1 << 60).contains(&bytes) => Ok(Self(bytes)),
            _ => Err(wrong),
        }
    }
}

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1000) { write!(f, "{}", self.0 / 1000) } else { write!(f, "{}m", self.0) }
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Only what can be parsed again.
        let fits = |unit: u64| self.0.is_multiple_of(unit) && self.0 / unit < 1_000_000;
        let exact = UNITS.iter().rev().filter(|(_, unit)| fits(*unit));
        let with_unit = exact.map(|(name, unit)| format!("{}{name}", self.0 / unit));
        let shortest = with_unit.min_by_key(String::len).filter(|text| text.len() <= self.0.to_string().len());
        f.write_str(&shortest.unwrap_or_else(|| self.0.to_string()))
    }
}

macro_rules! as_text {
    ($quantity:ty) => {
        impl TryFrom<String> for $quantity {
            type Error = NotAQuantity;
            fn try_from(text: String) -> Result<Self, NotAQuantity> {
                text.parse()
            }
        }
        impl From<$quantity> for String {
            fn from(quantity: $quantity) -> Self {
                quantity.to_string()
            }
        }
    };
}
as_text!(Cpu);
as_text!(Bytes);

fn whole(text: &str, most: usize) -> Option<u64> {
    let digits = (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits && (text == "0" || !text.starts_with('0')))
}

/// A decimal number, in thousandths.
fn thousandths(text: &str) -> Option<u128> {
    let (before, behind) = text.split_once('.').unwrap_or((text, "000"));
    let digits = (1..=BEHIND).contains(&behind.len()) && behind.bytes().all(|byte| byte.is_ascii_digit());
    let behind: u128 = format!("{behind:0<BEHIND$}").parse().ok().filter(|_| digits)?;
    Some(u128::from(whole(before, BEFORE)?) * 1000 + behind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_kubernetes_reads_them_and_shown_in_their_shortest_exact_form() {
        let cpu = [("500m", 500, "500m"), ("0.5", 500, "500m"), ("2", 2000, "2"), ("1.25", 1250, "1250m")];
        for (text, millis, shown) in cpu {
            let cpu: Cpu = text.parse().unwrap();
            assert_eq!((cpu.millis(), cpu.to_string().as_str()), (millis, shown), "{text}");
        }
        let bytes = [
            ("512Mi", 512 << 20, "512Mi"),
            ("1024Mi", 1 << 30, "1Gi"),
            ("1.5Gi", 3 << 29, "1536Mi"),
            ("1G", 1_000_000_000, "1G"),
            ("128974848", 128_974_848, "123Mi"),
            ("1", 1, "1"),
            ("0.001Ki", 2, "2"),
            ("4097", 4097, "4097"),
            ("1024M", 1_024_000_000, "1024M"),
            ("1000003000", 1_000_003_000, "1000003000"),
        ];
        for (text, number, shown) in bytes {
            let bytes: Bytes = text.parse().unwrap();
            assert_eq!((bytes.get(), bytes.to_string().as_str()), (number, shown), "{text}");
            assert_eq!(bytes.to_string().parse(), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_amount_is_refused_with_an_example() {
        for text in
            ["", "m", "-1", "0", "0m", "1 ", "+1", "1e3", "0.5m", "1.2345", "1000", "½", "1,5", ".5", "1.", "01"]
        {
            assert!(text.parse::<Cpu>().unwrap_err().to_string().contains("500m"), "{text:?}");
        }
        for text in [
            "",
            "Gi",
            "-1Gi",
            "0",
            "0Gi",
            "1 Gi",
            "1gi",
            "1GB",
            "1K",
            "1.5",
            "1e3",
            "9999999999999Ti",
            "1m",
            "é",
            "01Gi",
            "1000000k",
        ] {
            assert!(text.parse::<Bytes>().unwrap_err().to_string().contains("512Mi"), "{text:?}");
        }
    }
}
