//! Lists: paging and ordering, from query parameters to the store and back to an envelope.

mod params;

pub(crate) use self::params::ListParams;

use ambient_persistence::{ListQuery, Order};
use ambient_wire::api::List;

use crate::error::{ApiError, ApiResult};

/// Items per page if the caller does not say.
pub(crate) const DEFAULT_SIZE: i64 = 100;
/// Most labels that a list can be filtered by.
pub(crate) const MAX_LABELS: usize = 20;
/// Highest page number.
pub(crate) const MAX_PAGE: i64 = 1_000_000_000;
/// Most items per page.
pub(crate) const MAX_SIZE: i64 = 65_500;

/// A column's name in the API and in the store.
type Column = (&'static str, &'static str);

/// Page and size, within their limits.
pub(crate) fn paging(page: Option<i64>, size: Option<i64>, max_size: i64) -> ApiResult<(i64, i64)> {
    let (page, size) = (page.unwrap_or(1), size.unwrap_or(DEFAULT_SIZE));
    if !(1..=MAX_PAGE).contains(&page) {
        return Err(ApiError::invalid("page", format!("must be 1 to {MAX_PAGE}")));
    }
    if !(0..=max_size).contains(&size) {
        return Err(ApiError::invalid("size", format!("must be 0 to {max_size}")));
    }
    Ok((page, size))
}

/// `name`, `name desc`, `phase,created_at desc`.
fn order(text: Option<&str>, columns: &[Column]) -> ApiResult<Vec<(String, Order)>> {
    let Some(text) = text else { return Ok(Vec::new()) };
    let mut order = Vec::new();
    for item in text.split(',') {
        let mut words = item.split(' ').filter(|word| !word.is_empty());
        let (name, direction, rest) = (words.next().unwrap_or_default(), words.next(), words.next());
        let column = columns.iter().find(|(api, _)| *api == name).map(|(_, store)| *store);
        let direction = match direction.map(str::to_ascii_lowercase).as_deref() {
            None | Some("asc") => Some(Order::Ascending),
            Some("desc") => Some(Order::Descending),
            Some(_) => None,
        };
        match (column, direction, rest) {
            (Some(column), Some(direction), None) => order.push((column.to_owned(), direction)),
            _ => return Err(bad_order(item, columns)),
        }
    }
    Ok(order)
}

fn bad_order(item: &str, columns: &[Column]) -> ApiError {
    let names: Vec<&str> = columns.iter().map(|(api, _)| *api).collect();
    let item = item.escape_debug();
    ApiError::invalid(
        "order_by",
        format!("bad order value '{item}'; use column[ asc|desc] with one of the columns {}", names.join(", ")),
    )
}

/// Each `key=value` becomes a filter on labels.
fn labels(given: &[String]) -> ApiResult<Vec<(String, String)>> {
    if given.len() > MAX_LABELS {
        return Err(ApiError::invalid("label", format!("may be given at most {MAX_LABELS} times")));
    }
    let label = |text: &String| match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((format!("labels.{key}"), value.to_owned())),
        _ => Err(ApiError::invalid("label", "must be key=value")),
    };
    given.iter().map(label).collect()
}

/// A store query from its parts.
fn query((page, size): (i64, i64), order_by: Vec<(String, Order)>, filters: Vec<(String, String)>) -> ListQuery {
    ListQuery { page, size, order_by, filters, with_deleted: false }
}

/// The envelope.
pub(crate) fn envelope<T>(kind: &str, page: i64, total: i64, items: Vec<T>) -> List<T> {
    let size = i64::try_from(items.len()).unwrap_or(i64::MAX);
    List { kind: kind.to_owned(), page, size, total, items, next: None, oldest: None }
}

/// The envelope for a list with a cursor.
pub(crate) fn cursored<T>(kind: &str, total: i64, items: Vec<T>, next: Option<String>) -> List<T> {
    List { next, ..envelope(kind, 1, total, items) }
}

/// The same for a live log, with the oldest event that is kept, if earlier ones were removed.
pub(crate) fn kept<T>(list: List<T>, oldest: Option<i64>) -> List<T> {
    List { oldest, ..list }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_a_list_of_known_columns() {
        let columns = [("name", "display_name"), ("created_at", "created_at")];
        let parsed = order(Some("name, created_at DESC"), &columns).unwrap();
        assert_eq!(
            parsed,
            [("display_name".to_owned(), Order::Ascending), ("created_at".to_owned(), Order::Descending)]
        );
        for bad in ["", "nope", "name up", "name desc desc", "name;drop", "display_name", ",", "name\tdesc"] {
            assert!(order(Some(bad), &columns).is_err(), "{bad}");
        }
    }

    #[test]
    fn page_and_size_have_limits() {
        assert_eq!(paging(None, None, MAX_SIZE).unwrap(), (1, 100));
        assert_eq!(paging(Some(2), Some(0), MAX_SIZE).unwrap(), (2, 0));
        for (page, size) in [(0, 1), (-1, 1), (1_000_000_001, 1), (1, -1), (1, 65_501)] {
            let told = paging(Some(page), Some(size), MAX_SIZE).unwrap_err().to_string();
            assert!(["page: must be 1 to 1000000000", "size: must be 0 to 65500"].contains(&&*told), "{told}");
        }
    }
}
