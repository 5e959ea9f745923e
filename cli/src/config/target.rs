//! From flags, variables and the file to the target server.

use std::fmt;

use ambient_wire::redact;
use url::Url;

use super::{ConfigError, Context, Environment, File};
use crate::Globals;

/// The server to talk to.
#[derive(Clone)]
pub(crate) struct Target {
    /// Base URL, with a path that ends in `/`.
    pub(crate) url: Url,
    /// Bearer token.
    pub(crate) token: Option<String>,
    /// Project id or name.
    pub(crate) project: Option<String>,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({}, project {:?})", self.url, self.project)
    }
}

impl Target {
    /// Flags win over variables, variables over the context.
    pub(crate) fn resolve(globals: &Globals, environment: &Environment) -> Result<Self, ConfigError> {
        let wanted = [("--url", &globals.url), ("AMBIENT_URL", &environment.url)];
        let named = wanted.into_iter().find_map(|(setting, url)| url.as_ref().map(|url| parse_url(setting, url)));
        let named = named.transpose()?;
        let token = globals.token.clone().or_else(|| environment.token.clone());
        let project = globals.project.clone().or_else(|| environment.project.clone());
        // If server and token are given, a broken file must not get in the way.
        let context = match (&named, &token) {
            (Some(_), Some(_)) if globals.context.is_none() && project.is_some() => None,
            _ => chosen(globals, environment)?,
        };
        let context = match context {
            Some((name, context)) => Some((parse_url(&format!("contexts.{name}.url"), &context.url)?, context)),
            None => None,
        };
        let Some(url) = named.or_else(|| context.as_ref().map(|(url, _)| url.clone())) else {
            return Err(ConfigError::NoServer);
        };
        // A context's token and project mean nothing to another server, and must not be shown to it.
        let own = context.filter(|(own, _)| own.origin() == url.origin()).map(|(_, context)| context);
        let (own_token, own_project) = own.map_or((None, None), |context| (context.token, context.project));
        Ok(Self { url, token: token.or(own_token), project: project.or(own_project) })
    }
}

fn chosen(globals: &Globals, environment: &Environment) -> Result<Option<(String, Context)>, ConfigError> {
    let path = match environment.config_path() {
        Ok(path) => path,
        Err(_) if globals.context.is_none() => return Ok(None),
        Err(error) => return Err(error),
    };
    choose_context(&File::read(&path)?, globals.context.as_deref())
}

/// The named context, else the current one.
pub(crate) fn choose_context(file: &File, name: Option<&str>) -> Result<Option<(String, Context)>, ConfigError> {
    let Some(name) = name.or(file.current_context.as_deref()) else {
        return Ok(None);
    };
    let unknown = || ConfigError::UnknownContext { name: name.to_owned(), known: file.names() };
    let context = file.contexts.get(name).ok_or_else(unknown)?;
    Ok(Some((name.to_owned(), context.clone())))
}

/// A base URL; `setting` tells the error where it came from.
pub(crate) fn parse_url(setting: &str, text: &str) -> Result<Url, ConfigError> {
    let wrong = |problem: String| ConfigError::Setting { setting: setting.to_owned(), problem };
    let mut url = Url::parse(text).map_err(|error| wrong(format!("'{}' is not a URL: {error}", redact::text(text))))?;
    match url.scheme() {
        "http" => {}
        "https" => {
            return Err(wrong("https is not built in yet; use http to a server or proxy on this machine".to_owned()));
        }
        scheme => return Err(wrong(format!("must begin with http://, not {scheme}:"))),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("must not contain credentials; use AMBIENT_TOKEN".to_owned()));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("must not have a query or fragment".to_owned()));
    }
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok(url)
}
