//! What a message comes with, as content blocks of the protocol.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path};

use agent_client_protocol::v1::schema as acp;
use ambient_wire::{file_name, session::Attachment};
use base64::{Engine, engine::general_purpose::STANDARD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use serde_json::Value;

use super::files::{self, Content};
use crate::attempt::Attempt;

/// Largest text that goes into a message, and most bytes of all its files together; what is larger is named.
const MAX_TEXT: usize = 512 * 1024;
const MAX_ALL: usize = 10 * 1024 * 1024;

/// What stands for itself in a path of a URI.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Blocks in order, and what could not be taken, in words. Files are read with the agent's rights.
pub(super) async fn blocks(
    attempt: &Attempt,
    takes: &Value,
    attachments: &[Attachment],
) -> (Vec<acp::ContentBlock>, Vec<String>) {
    let (mut blocks, mut missing, mut left) = (Vec::new(), Vec::new(), MAX_ALL);
    for attachment in attachments {
        match attachment {
            Attachment::Link { uri, name } => {
                let name = name.clone().unwrap_or_else(|| uri.clone());
                blocks.push(acp::ContentBlock::ResourceLink(acp::ResourceLink::new(name, uri.clone())));
            }
            Attachment::File { path } => {
                let Ok(name) = file_name::unescape(path) else {
                    missing.push(format!("attachment '{path}' is left out: {}", file_name::NotAName));
                    continue;
                };
                let file = attempt.paths.workspace().join(OsStr::from_bytes(&name));
                match files::content(attempt, &file).await {
                    Ok(Content::TooLarge) => blocks.push(link(path, uri(&file))),
                    Ok(Content::Whole(bytes)) if bytes.len() > left => blocks.push(link(path, uri(&file))),
                    Ok(Content::Whole(bytes)) => {
                        left -= bytes.len();
                        blocks.push(of_file(takes, path, &file, bytes));
                    }
                    Ok(Content::Absent) => {
                        missing.push(format!("attachment '{path}' is left out: there is no such file"));
                    }
                    Err(reason) => missing.push(format!("attachment '{path}' is left out: {reason}")),
                }
            }
        }
    }
    (blocks, missing)
}

fn of_file(takes: &Value, name: &str, file: &Path, bytes: Vec<u8>) -> acp::ContentBlock {
    let uri = uri(file);
    let kind = media_type(file);
    match kind {
        Some(kind) if kind.starts_with("image/") && takes["image"] == true => {
            acp::ContentBlock::Image(acp::ImageContent::new(STANDARD.encode(&bytes), kind))
        }
        Some(kind) if kind.starts_with("audio/") && takes["audio"] == true => {
            acp::ContentBlock::Audio(acp::AudioContent::new(STANDARD.encode(&bytes), kind))
        }
        None if takes["embeddedContext"] == true && bytes.len() <= MAX_TEXT => match String::from_utf8(bytes) {
            Ok(text) => {
                let text = acp::TextResourceContents::new(text, uri);
                let resource = acp::EmbeddedResourceResource::TextResourceContents(text);
                acp::ContentBlock::Resource(acp::EmbeddedResource::new(resource))
            }
            Err(_) => link(name, uri),
        },
        _ => link(name, uri),
    }
}

fn uri(file: &Path) -> String {
    // Each byte that is not plain, so that any name is a URI, and leads back to its file.
    let path = percent_encode(file.as_os_str().as_bytes(), PLAIN);
    format!("file://{path}")
}

fn link(name: &str, uri: String) -> acp::ContentBlock {
    acp::ContentBlock::ResourceLink(acp::ResourceLink::new(name, uri))
}

/// Of images and audio, by the end of the name.
fn media_type(file: &Path) -> Option<&'static str> {
    let end = file.extension()?.to_str()?.to_ascii_lowercase();
    Some(match &*end {
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "wav" => "audio/wav",
        "mp3" => "audio/mpeg",
        "ogg" => "audio/ogg",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn any_name_is_a_uri() {
        assert_eq!(uri(Path::new("/w/a.rs")), "file:///w/a.rs");
        assert_eq!(uri(Path::new(OsStr::from_bytes(b"/w/a b#?%\xff"))), "file:///w/a%20b%23%3F%25%FF");
    }

    #[test]
    fn a_file_goes_into_the_message_only_if_the_agent_takes_such() {
        let kind = |takes: Value, name: &str, bytes: &[u8]| {
            let block = of_file(&takes, name, Path::new(name), bytes.to_vec());
            serde_json::to_value(block).unwrap()["type"].as_str().unwrap().to_owned()
        };
        assert_eq!(kind(json!({"image": true}), "a.PNG", b"x"), "image");
        assert_eq!(kind(json!({}), "a.png", b"x"), "resource_link");
        assert_eq!(kind(json!({"embeddedContext": true}), "a.rs", b"fn"), "resource");
        assert_eq!(kind(json!({"embeddedContext": true}), "a.bin", b"\xff"), "resource_link");
        assert_eq!(kind(json!({"embeddedContext": true}), "a.txt", &[b'x'; MAX_TEXT + 1]), "resource_link");
    }
}
