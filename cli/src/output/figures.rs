//! Numbers for people.

/// Digits in groups of three.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let group = |(place, digit): (usize, char)| {
        let comma = place > 0 && (digits.len() - place).is_multiple_of(3);
        comma.then_some(',').into_iter().chain([digit])
    };
    digits.chars().enumerate().flat_map(group).collect()
}

/// An amount, given in millionths.
pub(crate) fn money(micros: u64, currency: &str) -> String {
    format!("{}.{:04} {currency}", micros / 1_000_000, micros % 1_000_000 / 100)
}
