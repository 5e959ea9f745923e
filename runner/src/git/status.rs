//! `git status --porcelain=v2 -z`, parsed strictly: malformed output is an error, never a shorter list.

use ambient_wire::{file_name::escape, git::GitFile};

/// Most files that are reported.
const MAX_FILES: usize = 10_000;

/// The changed files, and whether there are more; nothing if it is malformed.
pub(super) fn changed_files(porcelain: &[u8]) -> Option<(Vec<GitFile>, bool)> {
    let mut files = Vec::new();
    let mut more = false;
    let mut entries = porcelain.split(|byte| *byte == 0);
    loop {
        let entry = entries.next()?;
        if entry.is_empty() {
            // After the last one's end.
            return entries.next().is_none().then_some((files, more));
        }
        let (status, path) = match entry[0] {
            b'?' => ("??".to_owned(), entry.strip_prefix(b"? ")?),
            b'1' => match fields(entry, 8)? {
                // The index was told about it, so that renames are found.
                (letters, path) if letters == " A" => ("??".to_owned(), path),
                other => other,
            },
            b'2' => fields(entry, 9)?,
            b'u' => fields(entry, 10)?,
            _ => return None,
        };
        // Always consumed, even for files that are not reported.
        let original = if entry[0] == b'2' { Some(entries.next().filter(|path| !path.is_empty())?) } else { None };
        if files.len() == MAX_FILES {
            more = true;
            continue;
        }
        files.push(GitFile { path: escape(path), status, original_path: original.map(escape) });
    }
}

/// The two letters of an entry and its path, which follows after `before` fields.
fn fields(entry: &[u8], before: usize) -> Option<(String, &[u8])> {
    let mut fields = entry.splitn(before + 1, |byte| *byte == b' ');
    let letters = fields.nth(1).filter(|letters| letters.len() == 2 && letters.is_ascii())?;
    let path = fields.nth(before - 2).filter(|path| !path.is_empty())?;
    Some((String::from_utf8_lossy(letters).replace('.', " "), path))
}

#[cfg(test)]
mod tests {
    use super::changed_files;

    #[test]
    fn names_of_any_length_are_told_and_what_is_no_status_is_no_answer() {
        let id = "0".repeat(40);
        let text = format!(
            "1 .M N... 100644 100644 100644 {id} {id} a b\x002 R. N... 100644 100644 100644 {id} {id} R100 long name\0x\0\
             u UU N... 100644 100644 100644 100644 {id} {id} {id} c\0? y\0"
        );
        let (files, more) = changed_files(text.as_bytes()).unwrap();
        let told: Vec<_> =
            files.iter().map(|f| (f.status.as_str(), f.path.as_str(), f.original_path.as_deref())).collect();
        let expected = [(" M", "a b", None), ("R ", "long name", Some("x")), ("UU", "c", None), ("??", "y", None)];
        assert_eq!((told.as_slice(), more), (&expected[..], false));
        let told = format!("1 .A N... 000000 100644 100644 {id} {id} new\0");
        assert_eq!(changed_files(told.as_bytes()).unwrap().0[0].status, "??");
        assert_eq!(changed_files(b""), Some((Vec::new(), false)));
        for bad in ["? y", "1 .M N... a\0", "x\0", "? y\0\0? z\0", "2 R. N... 1 1 1 0 0 R100 name\0"] {
            assert_eq!(changed_files(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
