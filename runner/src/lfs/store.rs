//! A folder of LFS objects, `lfs/objects/aa/bb/OID`, whoever owns it: opened from a handle, following no links. What goes in matches
//! its name, or does not go in.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{AtFlags, Mode, OFlags},
    io::Errno,
};
use sha2::{Digest, Sha256};

use super::pointer::{Object, is_oid};
use crate::{beneath, life};

/// Where objects are in a repository's directory.
const PLACE: [&str; 2] = ["lfs", "objects"];
const PIECE: usize = 64 * 1024;

/// An open folder of objects.
#[derive(Debug)]
pub(crate) struct Store {
    handle: OwnedFd,
    /// Permissions of new folders; new files get the read part.
    mode: Mode,
}

impl Store {
    /// The objects of a repository's directory; nothing if it has none.
    ///
    /// # Errors
    /// A system error; a link on the way.
    pub(crate) fn open(repository: &Path) -> std::io::Result<Option<Self>> {
        let mut handle = rustix::fs::open(repository, flags(), Mode::empty())?;
        for name in PLACE {
            handle = match enter(&handle, name) {
                Ok(inner) => inner,
                Err(Errno::NOENT) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
        }
        Ok(Some(Self { handle, mode: Mode::empty() }))
    }

    /// The same, created if missing, with the permissions that the repository's own objects have.
    ///
    /// # Errors
    /// A system error; a link on the way.
    pub(crate) fn make(repository: &Path) -> std::io::Result<Self> {
        let repository = rustix::fs::open(repository, flags(), Mode::empty())?;
        let about = rustix::fs::statat(&repository, "objects", AtFlags::SYMLINK_NOFOLLOW)?;
        let mode = Mode::from_raw_mode(about.st_mode) & Mode::from_raw_mode(0o2777);
        let mut handle = repository;
        for name in PLACE {
            handle = make(&handle, name, mode)?;
        }
        Ok(Self { handle, mode })
    }

    /// An object's file, for reading; nothing if there is none of that size.
    ///
    /// # Errors
    /// A system error; a link on the way.
    pub(crate) fn find(&self, object: &Object) -> std::io::Result<Option<File>> {
        if !is_oid(&object.oid) {
            return Ok(None);
        }
        let oid = &object.oid;
        let path = format!("{}/{}/{oid}", &oid[..2], &oid[2..4]);
        let how = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = match beneath::open(&self.handle, path, how) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let about = file.metadata()?;
        Ok((about.is_file() && about.len() == object.size).then_some(file))
    }

    /// Starts an object that does not exist yet.
    ///
    /// # Errors
    /// A system error; a link on the way.
    pub(crate) fn begin(&self, object: &Object) -> std::io::Result<Incoming> {
        if !is_oid(&object.oid) {
            return Err(std::io::Error::other("not the name of an object"));
        }
        let outer = make(&self.handle, &object.oid[..2], self.mode)?;
        let folder = make(&outer, &object.oid[2..4], self.mode)?;
        let name = format!(".incoming-{}", life::random_id()?);
        let how = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&folder, &name, how, Mode::from_raw_mode(0o600))?;
        let readable = self.mode & Mode::from_raw_mode(0o444);
        let (object, hash) = (object.clone(), Sha256::new());
        Ok(Incoming { folder, name, file: file.into(), object, hash, written: 0, readable, done: false })
    }
}

/// An object on its way in. If dropped before it is kept, it is gone.
pub(crate) struct Incoming {
    folder: OwnedFd,
    name: String,
    file: File,
    object: Object,
    hash: Sha256,
    written: u64,
    readable: Mode,
    done: bool,
}

impl Incoming {
    /// Takes the next piece.
    ///
    /// # Errors
    /// A system error; more than the object's size.
    pub(crate) fn write(&mut self, piece: &[u8]) -> std::io::Result<()> {
        self.written += piece.len() as u64;
        if self.written > self.object.size {
            return Err(std::io::Error::other(format!(
                "it has more than the {} bytes it should have",
                self.object.size
            )));
        }
        self.hash.update(piece);
        self.file.write_all(piece)
    }

    /// Takes a whole file.
    ///
    /// # Errors
    /// A system error; a different size.
    pub(crate) fn fill(&mut self, from: impl Read) -> std::io::Result<()> {
        let mut from = from.take(self.object.size.saturating_add(1));
        let mut piece = vec![0; PIECE];
        loop {
            match from.read(&mut piece)? {
                0 => return Ok(()),
                read => self.write(&piece[..read])?,
            }
        }
    }

    /// Moves it into place, if it matches its name.
    ///
    /// # Errors
    /// A system error; a different size or content.
    pub(crate) fn keep(mut self) -> std::io::Result<()> {
        if self.written != self.object.size {
            let (is, should) = (self.written, self.object.size);
            return Err(std::io::Error::other(format!("it has {is} bytes instead of {should}")));
        }
        let hash: String = self.hash.finalize_reset().iter().map(|byte| format!("{byte:02x}")).collect();
        if hash != self.object.oid {
            return Err(std::io::Error::other("its content is not what its hash says"));
        }
        rustix::fs::fchmod(&self.file, self.readable)?;
        self.file.sync_all()?;
        rustix::fs::renameat(&self.folder, &self.name, &self.folder, &self.object.oid)?;
        self.done = true;
        Ok(())
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.done {
            let _ = rustix::fs::unlinkat(&self.folder, &self.name, AtFlags::empty());
        }
    }
}

fn flags() -> OFlags {
    OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC
}

fn enter(folder: &impl AsFd, name: &str) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(folder, name, flags() | OFlags::NOFOLLOW, Mode::empty())
}

fn make(folder: &impl AsFd, name: &str, mode: Mode) -> std::io::Result<OwnedFd> {
    match rustix::fs::mkdirat(folder, name, Mode::from_raw_mode(0o700)) {
        Ok(()) => {
            let made = rustix::fs::openat(
                folder,
                name,
                OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
            rustix::fs::fchmod(&made, mode)?;
        }
        Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(enter(folder, name)?)
}

#[cfg(test)]
mod tests {
    use super::{Object, Store};

    fn object(oid: &str, size: u64) -> Object {
        Object { oid: oid.to_owned(), size }
    }

    /// SHA-256 of `hello\n`.
    const HELLO: &str = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";

    #[test]
    fn only_what_its_name_says_gets_in_and_no_link_leads_out() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        std::fs::create_dir(path.join("objects")).unwrap();
        assert!(Store::open(path).unwrap().is_none());
        let store = Store::make(path).unwrap();
        let put = |object: &Object, bytes: &[u8]| {
            let mut incoming = store.begin(object)?;
            incoming.fill(bytes)?;
            incoming.keep()
        };
        let hello = object(HELLO, 6);
        for (wanted, bytes) in
            [(&hello, &b"hello"[..]), (&hello, b"hello!"), (&hello, b"hello\nmore"), (&object(HELLO, 5), b"hello")]
        {
            assert!(put(wanted, bytes).is_err());
        }
        assert!(put(&object("../../../../x", 6), b"hello\n").is_err());
        let folder = path.join("lfs/objects/58/91");
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "what did not get in is gone");
        put(&hello, b"hello\n").unwrap();
        let store = Store::open(path).unwrap().unwrap();
        assert!(store.find(&hello).unwrap().is_some() && store.find(&object(HELLO, 7)).unwrap().is_none());
        std::fs::rename(&folder, path.join("elsewhere")).unwrap();
        std::os::unix::fs::symlink(path.join("elsewhere"), &folder).unwrap();
        assert!(store.find(&hello).unwrap().is_none());
        std::fs::rename(path.join("lfs"), path.join("other")).unwrap();
        std::os::unix::fs::symlink(path.join("other"), path.join("lfs")).unwrap();
        assert!(Store::open(path).is_err() && Store::make(path).is_err());
    }
}
