//! Time spans for people.

use chrono::{DateTime, TimeDelta, Utc};

/// Age of something since `then`: `5s`, `3m`, `2h`, `9d`. A time ahead of the local clock counts as now.
pub(crate) fn age(then: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let seconds = (now - then).num_seconds().max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Length of a span: `0.4 s`, `2 min 5 s`, `1 h 3 min`.
pub(crate) fn span(span: TimeDelta) -> String {
    let milliseconds = span.num_milliseconds().max(0);
    let seconds = milliseconds / 1_000;
    match seconds {
        0..60 => format!("{seconds}.{} s", milliseconds % 1_000 / 100),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_the_unit_people_would_choose() {
        let ages = [0, 119, 120, 7_199, 7_200, 172_800]
            .map(|s| age(DateTime::UNIX_EPOCH, DateTime::UNIX_EPOCH + TimeDelta::seconds(s)));
        assert_eq!(ages, ["0s", "119s", "2m", "119m", "2h", "2d"]);
        assert_eq!(age(Utc::now() + TimeDelta::seconds(9), Utc::now()), "0s");
        let spans = [90, 12_340, 125_000, 3_780_000].map(|ms| span(TimeDelta::milliseconds(ms)));
        assert_eq!(spans, ["0.0 s", "12.3 s", "2 min 5 s", "1 h 3 min"]);
    }
}
