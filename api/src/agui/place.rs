//! Where a reader of AG-UI events is: an event of the log gives none of them, one or several.

use std::{fmt, str::FromStr};

/// After the `nth` AG-UI event, from 1, of the event with this seq; without `nth`, after all of them. Written `45.2` or `45`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) seq: i64,
    pub(super) nth: Option<usize>,
}

impl Place {
    /// The seq up to which everything was seen.
    pub(super) fn complete(self) -> i64 {
        if self.nth.is_some() { self.seq - 1 } else { self.seq }
    }

    /// How many AG-UI events of this seq were seen.
    pub(super) fn seen_of(self, seq: i64) -> usize {
        self.nth.filter(|_| seq == self.seq).unwrap_or(0)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.nth {
            Some(nth) => write!(f, "{}.{nth}", self.seq),
            None => write!(f, "{}", self.seq),
        }
    }
}

impl FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (seq, nth) = text.split_once('.').map_or((text, None), |(seq, nth)| (seq, Some(nth)));
        let digits = |text: &str, most: usize| {
            (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
        };
        let is_padded = seq.len() > 1 && seq.starts_with('0');
        if is_padded || !digits(seq, 18) || nth.is_some_and(|nth| !digits(nth, 6)) {
            return Err(());
        }
        let seq: i64 = seq.parse().map_err(|_| ())?;
        let nth = nth.map(str::parse).transpose().map_err(|_| ())?;
        // Before the first event there are none.
        if seq == 0 && nth.is_some() { Err(()) } else { Ok(Self { seq, nth }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_reads_as_it_is_written_and_nothing_else_is_one() {
        for text in ["0", "45", "45.2", "45.0", "999999999999999999.999999"] {
            assert_eq!(text.parse::<Place>().unwrap().to_string(), text);
        }
        for text in
            ["", ".", "45.", ".2", "-1", "+1", "4 5", "0.1", "01", "1.2.3", "1000000000000000000", "1.1234567", "٣"]
        {
            assert_eq!(text.parse::<Place>(), Err(()), "{text}");
        }
        let place: Place = "45.2".parse().unwrap();
        assert_eq!((place.complete(), place.seen_of(45), place.seen_of(46)), (44, 2, 0));
        let place: Place = "45".parse().unwrap();
        assert_eq!((place.complete(), place.seen_of(45)), (45, 0));
    }
}
