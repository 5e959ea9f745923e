//! A prompt of an editor as the text of a message. What is not text of the user is marked as such.

use agent_client_protocol::v1::schema as acp;

/// The text.
///
/// # Errors
/// In words, if there is something that cannot be sent.
pub(super) fn text(blocks: &[acp::ContentBlock]) -> Result<String, String> {
    let parts = blocks.iter().map(part).collect::<Result<Vec<_>, _>>()?;
    let text = joined(&parts);
    if text.trim().is_empty() { Err("the prompt is empty".to_owned()) } else { Ok(text) }
}

/// What a block is in the text.
enum Part {
    /// Goes on where the last one ended: editors tear a text apart where it mentions a file.
    Inline(String),
    /// Stands by itself.
    Block(String),
}

fn part(block: &acp::ContentBlock) -> Result<Part, String> {
    match block {
        acp::ContentBlock::Text(text) => Ok(Part::Inline(text.text.clone())),
        acp::ContentBlock::ResourceLink(link) => Ok(Part::Inline(format!("[{}]({})", link.name, link.uri))),
        acp::ContentBlock::Resource(resource) => match &resource.resource {
            acp::EmbeddedResourceResource::TextResourceContents(content) => {
                let fence = fence(&content.text);
                let end = if content.text.ends_with('\n') { "" } else { "\n" };
                Ok(Part::Block(format!("Content of {}:\n\n{fence}text\n{}{end}{fence}", content.uri, content.text)))
            }
            _ => Err("a resource that is no text cannot be sent".to_owned()),
        },
        acp::ContentBlock::Image(_) => Err("images cannot be sent yet".to_owned()),
        acp::ContentBlock::Audio(_) => Err("audio cannot be sent".to_owned()),
        _ => Err("content of this sort cannot be sent".to_owned()),
    }
}

fn joined(parts: &[Part]) -> String {
    let mut text = String::new();
    let mut after_block = false;
    for part in parts {
        let (part, is_block) = match part {
            Part::Inline(part) => (part, false),
            Part::Block(part) => (part, true),
        };
        if (is_block || after_block) && !text.is_empty() {
            text.truncate(text.trim_end().len());
            text.push_str("\n\n");
        }
        text.push_str(part);
        after_block = is_block;
    }
    text
}

/// A fence that the text cannot close.
pub(super) fn fence(text: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or_default();
    "`".repeat(longest.max(2) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mentioned_stays_in_its_place_and_what_is_embedded_is_marked() {
        let link = acp::ResourceLink::new("a.rs", "file:///w/a.rs");
        let embedded = acp::TextResourceContents::new("has ```\n", "file:///w/b.md");
        let embedded = acp::EmbeddedResource::new(acp::EmbeddedResourceResource::TextResourceContents(embedded));
        let blocks = [
            acp::ContentBlock::from("Look at "),
            acp::ContentBlock::ResourceLink(link),
            acp::ContentBlock::from(", please."),
            acp::ContentBlock::Resource(embedded),
            acp::ContentBlock::from("Thanks"),
        ];
        insta::assert_snapshot!(text(&blocks).unwrap(), @r"
        Look at [a.rs](file:///w/a.rs), please.

        Content of file:///w/b.md:

        ````text
        has ```
        ````

        Thanks
        ");
    }

    #[test]
    fn what_cannot_be_sent_is_refused_with_its_reason() {
        let image = acp::ContentBlock::Image(acp::ImageContent::new("", "image/png"));
        assert_eq!(text(&[image]), Err("images cannot be sent yet".to_owned()));
        assert_eq!(text(&[acp::ContentBlock::from(" ")]), Err("the prompt is empty".to_owned()));
        assert_eq!(text(&[]), Err("the prompt is empty".to_owned()));
    }
}
