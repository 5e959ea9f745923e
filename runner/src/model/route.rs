//! Which paths of which dialect there are.

use ambient_runner_protocol::ModelDialect;
use hyper::{Method, Uri};

use super::refusal::Refusal;

/// Longest query that is passed on, bytes.
const MAX_QUERY: usize = 1024;
/// Query parameters that could be credentials.
const CREDENTIALS: [&str; 3] = ["key", "access_token", "api_key"];

/// Versions that no other dialect has.
const GEMINI_ONLY: [&str; 2] = ["v1beta", "v1alpha"];

/// What a request wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    /// An answer of a model.
    Answer,
    /// The number of tokens of what would be asked.
    Count,
    /// What models there are.
    Models,
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) dialect: ModelDialect,
    pub(super) want: Want,
    /// What is appended to the dialect's base URL, with the query.
    pub(super) path: String,
    /// Model, if the path names it.
    pub(super) model: Option<String>,
    /// The answer is events even if the request's body does not say so.
    pub(super) streams: bool,
}

impl Route {
    /// Reads method and path. `speaks` says which dialects the endpoint has, `is_anthropic` whether the request looks like it.
    ///
    /// # Errors
    /// When there is no such path, or the endpoint does not speak its dialect.
    pub(super) fn of(
        method: &Method,
        uri: &Uri,
        is_anthropic: bool,
        speaks: impl Fn(ModelDialect) -> bool,
    ) -> Result<Self, Refusal> {
        let path = uri.path();
        let route = match *method {
            Method::POST => asked(path),
            Method::GET => listed(path, is_anthropic, &speaks),
            _ => None,
        };
        let mut route = route.ok_or_else(|| Refusal::NoRoute(format!("{method} {}", shown(path))))?;
        if !speaks(route.dialect) {
            return Err(Refusal::NoDialect(route.dialect));
        }
        route.streams = route.path.ends_with(":streamGenerateContent");
        route.path += &query(uri.query().unwrap_or_default())?;
        Ok(route)
    }

    /// The dialect that a path belongs to, for the words of a refusal.
    pub(super) fn dialect_of(path: &str) -> Option<ModelDialect> {
        asked(path).map(|route| route.dialect).or_else(|| path.starts_with("/v1beta").then_some(ModelDialect::Gemini))
    }
}

fn asked(path: &str) -> Option<Route> {
    let unversioned = path.strip_prefix("/v1").unwrap_or(path);
    let route =
        |dialect, want, path: &str| Some(Route { dialect, want, path: path.to_owned(), model: None, streams: false });
    match unversioned {
        "/chat/completions" => route(ModelDialect::OpenaiChat, Want::Answer, unversioned),
        "/responses" => route(ModelDialect::OpenaiResponses, Want::Answer, unversioned),
        "/messages" => route(ModelDialect::Anthropic, Want::Answer, "/v1/messages"),
        "/messages/count_tokens" => route(ModelDialect::Anthropic, Want::Count, "/v1/messages/count_tokens"),
        _ => {
            let (_, rest) = gemini(path)?;
            let (model, method) = rest.rsplit_once(':')?;
            let want = match method {
                "generateContent" | "streamGenerateContent" => Want::Answer,
                "countTokens" => Want::Count,
                _ => return None,
            };
            let model = Some(model).filter(|model| is_plain(model))?.to_owned();
            Some(Route { model: Some(model), ..route(ModelDialect::Gemini, want, path)? })
        }
    }
}

fn listed(path: &str, is_anthropic: bool, speaks: impl Fn(ModelDialect) -> bool) -> Option<Route> {
    let route = |dialect, path: &str| {
        Some(Route { dialect, want: Want::Models, path: path.to_owned(), model: None, streams: false })
    };
    let is_models = |rest: &str| rest == "/models" || rest.strip_prefix("/models/").is_some_and(is_plain);
    let versioned = path.strip_prefix('/').and_then(|path| path.split_once('/'));
    if versioned.is_some_and(|(version, rest)| GEMINI_ONLY.contains(&version) && is_models(&format!("/{rest}"))) {
        return route(ModelDialect::Gemini, path);
    }
    let unversioned = path.strip_prefix("/v1").unwrap_or(path);
    if !is_models(unversioned) {
        return None;
    }
    let openai = [ModelDialect::OpenaiChat, ModelDialect::OpenaiResponses].into_iter().find(|dialect| speaks(*dialect));
    match openai.filter(|_| !(is_anthropic && speaks(ModelDialect::Anthropic))) {
        Some(dialect) => route(dialect, unversioned),
        None if speaks(ModelDialect::Gemini) && !speaks(ModelDialect::Anthropic) => route(ModelDialect::Gemini, path),
        None => route(ModelDialect::Anthropic, &format!("/v1{unversioned}")),
    }
}

/// Version and rest of a path to one of Gemini's models.
fn gemini(path: &str) -> Option<(&str, &str)> {
    let (version, rest) = path.strip_prefix('/')?.split_once('/')?;
    let rest = rest.strip_prefix("models/")?;
    (version == "v1" || GEMINI_ONLY.contains(&version)).then_some((version, rest))
}

/// Nothing that could lead elsewhere.
fn is_plain(segment: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !segment.is_empty() && segment.len() <= 256 && segment.chars().all(is_plain) && !segment.starts_with('.')
}

/// The query without what could be a credential.
fn query(query: &str) -> Result<String, Refusal> {
    if query.len() > MAX_QUERY {
        return Err(Refusal::BadRequest { field: "query", reason: format!("longer than {MAX_QUERY} bytes") });
    }
    let is_credential = |pair: &&str| {
        let name = pair.split('=').next().unwrap_or_default();
        let name = percent_encoding::percent_decode_str(name).decode_utf8_lossy().to_lowercase();
        CREDENTIALS.contains(&name.as_str())
    };
    let kept: Vec<&str> = query.split('&').filter(|pair| !pair.is_empty() && !is_credential(pair)).collect();
    Ok(if kept.is_empty() { String::new() } else { format!("?{}", kept.join("&")) })
}

/// A path for people.
fn shown(path: &str) -> String {
    path.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use ambient_runner_protocol::ModelDialect::{self, Anthropic, Gemini, OpenaiChat, OpenaiResponses};
    use hyper::{Method, Uri};

    use super::{Refusal, Route, Want};

    fn of(method: &Method, uri: &str, speaks: &[ModelDialect]) -> Result<Route, Refusal> {
        Route::of(method, &uri.parse::<Uri>().unwrap(), uri.contains("anthropic"), |dialect| speaks.contains(&dialect))
    }

    #[test]
    fn paths_of_the_dialects_are_found_and_credentials_in_the_query_are_not_passed_on() {
        let all = [OpenaiChat, OpenaiResponses, Anthropic, Gemini];
        let cases = [
            ("/v1/chat/completions", OpenaiChat, Want::Answer, "/chat/completions"),
            ("/responses?x=1&API_KEY=2&%6bey=3", OpenaiResponses, Want::Answer, "/responses?x=1"),
            ("/v1/messages?beta=true&key=x", Anthropic, Want::Answer, "/v1/messages?beta=true"),
            ("/v1/messages/count_tokens", Anthropic, Want::Count, "/v1/messages/count_tokens"),
            ("/v1beta/models/g-1.5:generateContent", Gemini, Want::Answer, "/v1beta/models/g-1.5:generateContent"),
        ];
        for (uri, dialect, want, path) in cases {
            let route = of(&Method::POST, uri, &all).unwrap();
            assert_eq!((route.dialect, route.want, route.path.as_str()), (dialect, want, path));
        }
        let route = of(&Method::POST, "/v1beta/models/g:streamGenerateContent?key=k&alt=sse", &all).unwrap();
        assert_eq!((route.model.as_deref(), route.streams), (Some("g"), true));
        assert_eq!(route.path, "/v1beta/models/g:streamGenerateContent?alt=sse");
        assert_eq!(of(&Method::GET, "/v1beta/models", &all).unwrap().dialect, Gemini);
        assert_eq!(of(&Method::GET, "/v1/models/m", &all).unwrap().path, "/models/m");
        assert_eq!(of(&Method::GET, "/v1/models?anthropic", &all).unwrap().dialect, Anthropic);
        assert_eq!(of(&Method::GET, "/models", &[Anthropic]).unwrap().path, "/v1/models");
    }

    #[test]
    fn whatever_else_is_asked_goes_nowhere() {
        let paths = [
            "/v1/embeddings",
            "/v1/files",
            "/v1/../v1/messages",
            "/v1/messages/batches",
            "/v1/responses/resp_1",
            "/v1beta/models/..%2Ffiles:generateContent",
            "/v1beta/models/a/b:generateContent",
            "/v1beta/models/.:generateContent",
            "/v1beta/cachedContents",
            "/v1beta/models/g:batchGenerateContent",
        ];
        for path in paths {
            for method in [Method::POST, Method::GET, Method::DELETE] {
                assert!(
                    matches!(of(&method, path, &[OpenaiChat, Gemini]), Err(Refusal::NoRoute(_))),
                    "{method} {path}"
                );
            }
        }
        assert!(matches!(of(&Method::POST, "/v1/messages", &[Gemini]), Err(Refusal::NoDialect(Anthropic))));
        assert!(of(&Method::DELETE, "/v1/models/m", &[OpenaiChat]).is_err());
    }
}
