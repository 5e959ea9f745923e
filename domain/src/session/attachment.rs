//! What a message comes with besides its text.

use serde::{Deserialize, Serialize};

use crate::{entity::Refusal, name};

/// Most attachments of a message.
const MAX: usize = 10;
/// Longest path, address and name, bytes.
const MAX_PATH: usize = 4096;
const MAX_URI: usize = 2048;
const MAX_NAME: usize = 200;

/// Something that a message comes with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub enum Attachment {
    /// A file of the workspace, as it is when the message is worked on.
    File {
        /// In the workspace.
        path: String,
    },
    /// Something elsewhere, which the agent may fetch.
    Link {
        /// Its address.
        uri: String,
        /// What it is called.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
}

/// Checks every field.
///
/// # Errors
/// A refusal that names the field.
pub(super) fn validate(attachments: &[Attachment]) -> Result<(), Refusal> {
    if attachments.len() > MAX {
        return Err(Refusal::invalid("attachments", format!("at most {MAX}")));
    }
    for (i, attachment) in attachments.iter().enumerate() {
        let field = |name: &str| format!("attachments[{i}].{name}");
        match attachment {
            Attachment::File { path } => {
                said(&field("path"), path, MAX_PATH)?;
                if path.starts_with('/')
                    || path.split('/').any(|part| part == "..")
                    || path.trim_matches(['.', '/']).is_empty()
                {
                    return Err(Refusal::invalid(field("path"), "must be a file in the workspace, without .."));
                }
            }
            Attachment::Link { uri, name } => {
                said(&field("uri"), uri, MAX_URI)?;
                if !has_scheme(uri) {
                    return Err(Refusal::invalid(field("uri"), "must be an address, such as https://…"));
                }
                if name::has_credentials(uri) {
                    return Err(Refusal::invalid(
                        field("uri"),
                        "must not contain credentials: everyone who may see the session sees it",
                    ));
                }
                name.as_ref().map_or(Ok(()), |name| said(&field("name"), name, MAX_NAME))?;
            }
        }
    }
    Ok(())
}

fn has_scheme(uri: &str) -> bool {
    uri.split_once(':').is_some_and(|(scheme, rest)| {
        !rest.is_empty()
            && scheme.starts_with(|letter: char| letter.is_ascii_alphabetic())
            && scheme.chars().all(|letter| letter.is_ascii_alphanumeric() || "+-.".contains(letter))
            && !uri.contains(char::is_whitespace)
    })
}

fn said(field: &str, text: &str, most: usize) -> Result<(), Refusal> {
    if text.is_empty() {
        return Err(Refusal::invalid(field, "must not be empty"));
    }
    name::line(field, text, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_checked_and_named() {
        let file = |path: &str| Attachment::File { path: path.to_owned() };
        let link = |uri: &str| Attachment::Link { uri: uri.to_owned(), name: None };
        for (attachment, field) in [
            (file("hello/a b.png"), None),
            (link("https://example.com/x"), None),
            (file(""), Some("path")),
            (file("/etc/passwd"), Some("path")),
            (file("a/../../b"), Some("path")),
            (file("./"), Some("path")),
            (file("a\nb"), Some("path")),
            (link("example.com"), Some("uri")),
            (link("https://a b"), Some("uri")),
            (link("https://user:secret@example.com/"), Some("uri")),
            (link("mailto:somebody@example.com"), None),
        ] {
            let refused = validate(std::slice::from_ref(&attachment)).err().and_then(|refusal| refusal.field);
            assert_eq!(refused, field.map(|field| format!("attachments[0].{field}")), "{attachment:?}");
        }
        assert!(validate(&vec![file("a"); 11]).is_err());
    }
}
