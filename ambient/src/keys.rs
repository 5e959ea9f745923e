//! Secrets that a server keeps next to its database: created at first start, mode 0600, never printed except to their owner.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use rand::RngCore as _;

/// Bytes of a key.
const KEY_BYTES: usize = 32;

/// The key that seals the server's keys in the database.
///
/// # Errors
/// When the file cannot be created or read, has a different length, or is readable by others.
pub fn vault_key(data_dir: &Path) -> io::Result<Vec<u8>> {
    let text = read_or_make(&data_dir.join("vault.key"), || random_hex(KEY_BYTES))?;
    let key = decode_hex(text.trim()).filter(|key| key.len() == KEY_BYTES);
    key.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "vault.key does not contain 64 hexadecimal digits"))
}

/// The local administrator's token.
///
/// # Errors
/// When the file cannot be created or read, is empty, or is readable by others.
pub fn admin_token(file: &Path) -> io::Result<String> {
    let token = read_or_make(file, || format!("amb_admin_{}", random_hex(KEY_BYTES)))?.trim().to_owned();
    if token.len() < 16 {
        let text = format!("{} has fewer than 16 characters", file.display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(token)
}

fn read_or_make(file: &Path, make: impl FnOnce() -> String) -> io::Result<String> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(file) {
        Ok(mut new) => {
            let text = make();
            new.write_all(text.as_bytes())?;
            new.sync_all()?;
            Ok(text)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if fs::metadata(file)?.mode() & 0o077 != 0 {
                let text = format!("{}: others may read it; chmod 600 it", file.display());
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
            }
            fs::read_to_string(file)
        }
        Err(error) => Err(io::Error::new(error.kind(), format!("{}: {error}", file.display()))),
    }
}

fn random_hex(bytes: usize) -> String {
    let mut random = vec![0; bytes];
    rand::rng().fill_bytes(&mut random);
    random.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}
