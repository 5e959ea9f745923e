//! Addresses in the API, safe against path traversal.

use std::borrow::Cow;

use ambient_wire::BASE;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::Url;

use crate::error::CliError;

/// What is encoded in a segment: all but RFC 3986's unreserved characters. Of anything less a URL is not a faithful carrier: its parser drops
/// tabs and line breaks, and what is left may be another object's name.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A path below the API's base, with its query.
#[derive(Debug, Clone, Default)]
pub(crate) struct Route {
    segments: Vec<String>,
    query: Vec<(Cow<'static, str>, String)>,
}

impl Route {
    pub(crate) fn new<const N: usize>(segments: [&str; N]) -> Self {
        Self { segments: segments.map(str::to_owned).to_vec(), query: Vec::new() }
    }

    /// Adds a parameter if there is a value.
    pub(crate) fn query<T: ToString>(mut self, name: impl Into<Cow<'static, str>>, value: Option<T>) -> Self {
        self.query.extend(value.map(|value| (name.into(), value.to_string())));
        self
    }

    /// Adds the segments of a path inside a workspace.
    pub(crate) fn path(mut self, path: &str) -> Self {
        self.segments.extend(path.split('/').map(str::to_owned));
        self
    }

    /// The route as people know it.
    pub(crate) fn shown(&self) -> String {
        format!("/{}", self.segments.join("/"))
    }

    /// The full address. A segment keeps its slashes (percent-encoded) and can never escape its place.
    pub(crate) fn url(&self, base: &Url) -> Result<Url, CliError> {
        let mut url = base.clone();
        // URL rules drop "." and "..", which would address another route.
        if let Some(bad) = self.segments.iter().find(|segment| matches!(segment.as_str(), "" | "." | "..")) {
            return Err(CliError::Usage(format!("'{bad}' cannot be a name, an id or a path segment")));
        }
        if url.cannot_be_a_base() {
            return Err(CliError::Usage(format!("{base} cannot be a base URL")));
        }
        let mut path = format!("{}{BASE}", base.path().trim_end_matches('/'));
        for segment in &self.segments {
            path.push('/');
            path.extend(utf8_percent_encode(segment, SEGMENT));
        }
        url.set_path(&path);
        if !self.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&self.query);
        }
        Ok(url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_stays_in_its_place() {
        let base = Url::parse("http://h:1/behind/proxy/").unwrap();
        let url = |route: Route| route.url(&base).map(String::from);
        let id = "session-start/2abc/1.1";
        assert_eq!(
            url(Route::new(["workflow_executions", id, "history"])).unwrap(),
            "http://h:1/behind/proxy/api/ambient/v1/workflow_executions/session-start%2F2abc%2F1.1/history"
        );
        let listing =
            Route::new(["sessions"]).query("name", Some("a b&c")).query("page", None::<u32>).query("size", Some(0));
        assert_eq!(url(listing).unwrap(), "http://h:1/behind/proxy/api/ambient/v1/sessions?name=a+b%26c&size=0");
        assert!(url(Route::new(["w"]).path("dir/ü?#%2e")).unwrap().ends_with("/w/dir/%C3%BC%3F%23%252e"));
        for (name, sent) in [
            ("vic\r\nt\tim", "vic%0D%0At%09im"),
            ("\u{7f}\u{1b}\\ ", "%7F%1B%5C%20"),
            ("%2e%2E", "%252e%252E"),
            (".\t.", ".%09."),
            ("\n", "%0A"),
            ("id:a=b;c@d", "id%3Aa%3Db%3Bc%40d"),
        ] {
            let there = url(Route::new(["projects", name])).unwrap();
            assert_eq!(
                there.rsplit_once("/projects/"),
                Some(("http://h:1/behind/proxy/api/ambient/v1", sent)),
                "{name:?}"
            );
        }
        for bad in ["", ".", "..", "a//b", "a/../b", "/etc"] {
            assert!(matches!(url(Route::new(["sessions"]).path(bad)), Err(CliError::Usage(_))), "{bad}");
        }
    }
}
