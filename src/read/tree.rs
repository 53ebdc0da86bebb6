//! Reads a directory tree, a file or a block device.
//!
//! Directories are read as a stream, depth first, so that one with a million entries takes no memory. Everything is opened
//! in the directory where it was found, and never by a symbolic link: nothing outside is read, whatever changes meanwhile.

use std::{
    ffi::CStr,
    fs,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::FileTypeExt},
    },
    path::Path,
};

#[cfg(target_os = "linux")]
use rustix::fs::{Advice, Statx, StatxFlags, fadvise, makedev, statx};
use rustix::{
    fs::{AtFlags, CWD, Dev, Dir, FileType, Mode, OFlags, SeekFrom, fstat, openat, seek, statat},
    io::Errno,
};

use super::{
    report::{Ended, shown},
    tally::{Tally, Why},
};

/// How many bytes are read at once.
const CHUNK: usize = 256 * 1024;

/// How many directories may be open, one in the other. Paths of more bytes than the kernel takes, 4096, have hardly more.
const MOST_LEVELS: usize = 500;

/// What ext4 makes in a new file system, for root alone.
const LOST_AND_FOUND: &CStr = c"lost+found";

/// How files are opened. A pipe that stands where a file was must not wait for somebody to write.
fn flags() -> OFlags {
    OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY
}

/// What is known of something that was opened.
struct Found {
    kind: FileType,
    /// Whether the file has less space than bytes.
    is_sparse: bool,
    place: Place,
}

/// Where something is.
#[derive(Clone, Copy)]
struct Place {
    /// A number of the mount; not every kernel tells.
    mount: Option<u64>,
    /// Of the file system, or of a part of it: in btrfs each subvolume has its own.
    device: Dev,
}

impl Place {
    fn is(self, other: Place) -> bool {
        match (self.mount, other.mount) {
            (Some(one), Some(other)) => one == other,
            _ => self.device == other.device,
        }
    }
}

impl Found {
    fn of(file: impl AsFd) -> Result<Found, Errno> {
        #[cfg(target_os = "linux")]
        match statx(file.as_fd(), c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS | StatxFlags::MNT_ID) {
            // An old kernel, or a sandbox that does not know the call.
            Err(Errno::NOSYS | Errno::PERM) => {}
            found => return found.map(|found| Found::of_statx(&found)),
        }
        let found = fstat(file)?;
        Ok(Found {
            kind: FileType::from_raw_mode(found.st_mode),
            is_sparse: found.st_blocks.saturating_mul(512) < found.st_size,
            place: Place { mount: None, device: found.st_dev },
        })
    }

    #[cfg(target_os = "linux")]
    fn of_statx(found: &Statx) -> Found {
        let has_mount = StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::MNT_ID);
        Found {
            kind: FileType::from_raw_mode(found.stx_mode.into()),
            is_sparse: found.stx_blocks.saturating_mul(512) < found.stx_size,
            place: Place {
                mount: has_mount.then_some(found.stx_mnt_id),
                device: makedev(found.stx_dev_major, found.stx_dev_minor),
            },
        }
    }
}

/// A directory that is being read.
struct Level {
    dir: Dir,
    /// How long the path was before it got the directory's name.
    length: usize,
}

/// Reads one thing after the other, with one buffer.
pub(super) struct Reader<'a> {
    tally: &'a Tally,
    buffer: Vec<u8>,
    /// The path of what is being read.
    path: Vec<u8>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(tally: &'a Tally) -> Self {
        Reader { tally, buffer: vec![0; CHUNK], path: Vec::new() }
    }

    /// Reads a volume: everything below a directory, a file, or a block device.
    pub(super) fn read(&mut self, path: &Path) {
        let missed = |tally: &Tally| {
            let mut missed = 0;
            tally.count(|counts| missed = counts.unreadable + counts.denied);
            missed
        };
        let before = (self.tally.bytes(), missed(self.tally));
        self.path = path.as_os_str().as_bytes().to_vec();
        let is_blank = match self.open(path) {
            Ok(Some((file, Found { kind: FileType::Directory, place, .. }))) => {
                self.walk(file, place);
                false
            }
            // A disk that nobody ever wrote to is full of zeros.
            Ok(Some((file, found))) => self.file(file, found.kind == FileType::BlockDevice, found.is_sparse),
            Ok(None) => return,
            Err(error) => return self.miss(error),
        };
        let is_empty = is_blank || self.tally.bytes() == before.0;
        if is_empty && missed(self.tally) == before.1 && !self.tally.is_stopped() {
            tracing::warn!("there is nothing in {}", shown(path.as_os_str().as_bytes()));
            self.tally.count(|counts| counts.empty = true);
        }
    }

    /// Opens what a person or a manifest names, by a symbolic link too; `None` if it is nothing that can be read.
    fn open(&self, path: &Path) -> Result<Option<(OwnedFd, Found)>, Errno> {
        // Opening a pipe, or a terminal, would do something to it.
        let kind = match fs::metadata(path) {
            Ok(found) => found.file_type(),
            Err(error) => match Errno::from_io_error(&error) {
                Some(errno) if Trouble::of(errno) == Trouble::Denied => return Err(errno),
                // A path that is not there is no damage: it was named wrongly, or nothing is mounted.
                _ => {
                    let message = format!("there is no {}: {error}", shown(&self.path));
                    self.tally.end(Ended::Trouble { message, is_transient: false });
                    return Ok(None);
                }
            },
        };
        if !(kind.is_dir() || kind.is_file() || kind.is_block_device()) {
            let message =
                format!("{} is neither a directory nor a file nor a block device", shown(&self.path));
            self.tally.end(Ended::Trouble { message, is_transient: false });
            return Ok(None);
        }
        let file = openat(CWD, path, flags().difference(OFlags::NOFOLLOW), Mode::empty())?;
        let found = Found::of(&file)?;
        Ok(Some((file, found)))
    }

    fn walk(&mut self, root: OwnedFd, place: Place) {
        let mut levels = Vec::new();
        self.enter(&mut levels, root, 0);
        while let Some(level) = levels.last_mut() {
            if self.tally.is_stopped() {
                return;
            }
            match level.dir.read() {
                None => {
                    self.path.truncate(level.length.max(1));
                    levels.pop();
                }
                // There is no more to be had of it; the next turn ends it.
                Some(Err(error)) => self.miss(error),
                Some(Ok(entry)) => {
                    let name = entry.file_name();
                    if name == c"." || name == c".." {
                        continue;
                    }
                    let length = self.path.len();
                    if self.path.last() != Some(&b'/') {
                        self.path.push(b'/');
                    }
                    self.path.extend_from_slice(name.to_bytes());
                    if let Some(inner) = self.entry(&levels, name, entry.file_type(), place) {
                        self.enter(&mut levels, inner, length);
                    } else {
                        self.path.truncate(length);
                    }
                }
            }
        }
    }

    fn enter(&mut self, levels: &mut Vec<Level>, directory: OwnedFd, length: usize) {
        match Dir::new(directory) {
            Ok(dir) => {
                self.tally.count(|counts| counts.directories += 1);
                levels.push(Level { dir, length });
            }
            Err(error) => {
                self.miss(error);
                self.path.truncate(length.max(1));
            }
        }
    }

    /// Reads an entry of the innermost directory. A directory is returned, to be entered.
    fn entry(&mut self, levels: &[Level], name: &CStr, kind: FileType, place: Place) -> Option<OwnedFd> {
        match kind {
            FileType::Symlink => {
                self.tally.count(|counts| counts.symlinks += 1);
                return None;
            }
            // Not every file system tells before something is opened. Of what is no file that does no harm: nothing waits,
            // and a device is not read.
            FileType::RegularFile | FileType::Directory | FileType::Unknown => {}
            _ => {
                self.tally.count(|counts| counts.special += 1);
                return None;
            }
        }
        let dir = &levels.last()?.dir;
        let opened = dir.fd().and_then(|dir| self.open_entry(dir, name, kind));
        let (file, found) = match opened {
            Ok(Some(opened)) => opened,
            Ok(None) => return None,
            Err(error) => {
                self.miss_entry(levels, name, error);
                return None;
            }
        };
        if !found.place.is(place) {
            tracing::info!("{} is another file system, and is left out", shown(&self.path));
            self.tally.count(|counts| counts.skipped += 1);
            return None;
        }
        match found.kind {
            FileType::Directory if levels.len() >= MOST_LEVELS => {
                let why = format!("it is deeper than {MOST_LEVELS} directories");
                self.tally.miss(shown(&self.path), why, Why::Unreadable);
                None
            }
            FileType::Directory => Some(file),
            FileType::RegularFile => {
                self.file(file, false, found.is_sparse);
                None
            }
            _ => {
                self.tally.count(|counts| counts.special += 1);
                None
            }
        }
    }

    /// Opens an entry of a directory, unless it is nothing to be opened.
    fn open_entry(
        &self,
        dir: impl AsFd,
        name: &CStr,
        kind: FileType,
    ) -> Result<Option<(OwnedFd, Found)>, Errno> {
        if kind == FileType::Unknown {
            let found = statat(dir.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW)?;
            match FileType::from_raw_mode(found.st_mode) {
                FileType::RegularFile | FileType::Directory => {}
                FileType::Symlink => {
                    self.tally.count(|counts| counts.symlinks += 1);
                    return Ok(None);
                }
                _ => {
                    self.tally.count(|counts| counts.special += 1);
                    return Ok(None);
                }
            }
        }
        let file = openat(dir, name, flags(), Mode::empty())?;
        let found = Found::of(&file)?;
        Ok(Some((file, found)))
    }

    /// Reads a file, and answers whether all that was read is zeros, if that is asked for.
    fn file(&mut self, file: OwnedFd, look_for_zeros: bool, is_sparse: bool) -> bool {
        // What is not said to be read in order is read in small pieces. Not every file system listens.
        #[cfg(target_os = "linux")]
        let _ = fadvise(&file, 0, None, Advice::Sequential);
        let mut is_blank = look_for_zeros;
        let mut at = 0;
        loop {
            // Where the data ends that is to be read now; `None`: where the file does.
            let end = match is_sparse.then(|| data(&file, at)) {
                None => None,
                Some(Ok(None)) => break,
                Some(Ok(Some((begin, end)))) => {
                    at = begin;
                    Some(end)
                }
                Some(Err(error)) => {
                    self.miss(error);
                    return is_blank;
                }
            };
            while end.is_none_or(|end| at < end) {
                if self.tally.is_stopped() {
                    return is_blank;
                }
                let room = end.map_or(CHUNK, |end| usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK));
                let buffer = self.buffer.get_mut(..room).unwrap_or_default();
                match rustix::io::read(&file, buffer) {
                    // Of a sparse file the end too, if somebody cut it meanwhile.
                    Ok(0) => {
                        self.tally.count(|counts| counts.files += 1);
                        return is_blank;
                    }
                    Ok(number) => {
                        self.tally.add_bytes(number);
                        at = at.saturating_add(number as u64);
                        is_blank = is_blank
                            && self.buffer.get(..number).unwrap_or_default().iter().all(|byte| *byte == 0);
                    }
                    Err(Errno::INTR) => {}
                    Err(error) => {
                        self.miss(error);
                        return is_blank;
                    }
                }
            }
        }
        self.tally.count(|counts| counts.files += 1);
        is_blank
    }

    /// Notes that an entry of a directory was not read.
    fn miss_entry(&self, levels: &[Level], name: &CStr, error: Errno) {
        let dir = levels.last().map(|level| &level.dir);
        match Trouble::of(error) {
            Trouble::Denied if levels.len() == 1 && name == LOST_AND_FOUND => {
                tracing::info!("{} belongs to root, and is left out: {error}", shown(&self.path));
                self.tally.count(|counts| counts.skipped += 1);
            }
            // What is not there, and is listed still, is damage.
            Trouble::Gone if dir.is_some_and(|dir| !is_listed(dir, name)) => {
                tracing::info!("{} was deleted meanwhile", shown(&self.path));
                self.tally.count(|counts| counts.vanished += 1);
            }
            _ => self.miss(error),
        }
    }

    /// Notes that what the path names was not read, or not to its end.
    fn miss(&self, error: Errno) {
        let (path, said) = (shown(&self.path), std::io::Error::from(error).to_string());
        match Trouble::of(error) {
            Trouble::Denied => self.tally.miss(path, said, Why::Denied),
            Trouble::Gone | Trouble::Damage => self.tally.miss(path, said, Why::Unreadable),
            Trouble::Exhausted => {
                let message = format!("{path} cannot be opened: {said}");
                self.tally.end(Ended::Trouble { message, is_transient: true });
            }
        }
    }
}

/// What an error means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    Denied,
    /// It is not there any more, or something else is.
    Gone,
    /// The process has not what it needs, which says nothing of the data.
    Exhausted,
    Damage,
}

impl Trouble {
    fn of(error: Errno) -> Trouble {
        match error {
            Errno::ACCESS | Errno::PERM => Trouble::Denied,
            Errno::NOENT | Errno::LOOP => Trouble::Gone,
            Errno::MFILE | Errno::NFILE | Errno::NOMEM => Trouble::Exhausted,
            _ => Trouble::Damage,
        }
    }
}

/// Where the next data of a sparse file begins and ends, from a place on; `None`: there is no more. The file is then read
/// from its beginning.
fn data(file: &OwnedFd, from: u64) -> Result<Option<(u64, u64)>, Errno> {
    let begin = match seek(file, SeekFrom::Data(from)) {
        Ok(begin) => begin,
        Err(Errno::NXIO) => return Ok(None),
        // A file system that knows no holes.
        Err(Errno::INVAL | Errno::NOTSUP) => {
            seek(file, SeekFrom::Start(from))?;
            return Ok(Some((from, u64::MAX)));
        }
        Err(error) => return Err(error),
    };
    let end = seek(file, SeekFrom::Hole(begin))?;
    seek(file, SeekFrom::Start(begin))?;
    Ok(Some((begin, end)))
}

/// Whether a directory lists a name, as far as it can be read.
fn is_listed(dir: &Dir, name: &CStr) -> bool {
    let Ok(entries) = dir.fd().and_then(Dir::read_from) else { return true };
    for entry in entries {
        match entry {
            Ok(entry) if entry.file_name() == name => return true,
            Ok(_) => {}
            Err(_) => return true,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_error_means() {
        for (error, meaning) in [
            (Errno::ACCESS, Trouble::Denied),
            (Errno::PERM, Trouble::Denied),
            (Errno::NOENT, Trouble::Gone),
            (Errno::LOOP, Trouble::Gone),
            (Errno::MFILE, Trouble::Exhausted),
            (Errno::NOMEM, Trouble::Exhausted),
            (Errno::IO, Trouble::Damage),
            (Errno::STALE, Trouble::Damage),
            (Errno::NODATA, Trouble::Damage),
        ] {
            assert_eq!(Trouble::of(error), meaning, "{error:?}");
        }
    }

    /// Looks at an entry of a directory as if that had just been listed, and answers how many vanished and how many cannot
    /// be read.
    fn meet(dir: &Path, name: &CStr) -> (u64, u64) {
        let tally = Tally::default();
        let opened =
            openat(CWD, dir, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).expect("a directory");
        let place = Found::of(&opened).expect("a place").place;
        let levels = [Level { dir: Dir::new(opened).expect("a directory"), length: 0 }];
        let mut reader = Reader::new(&tally);
        assert!(reader.entry(&levels, name, FileType::RegularFile, place).is_none());
        let mut found = (0, 0);
        tally.count(|counts| found = (counts.vanished, counts.unreadable));
        found
    }

    #[test]
    fn a_file_that_vanishes_is_no_damage_unless_it_is_listed_still() {
        let dir = std::env::temp_dir().join(format!("vanishing-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory");
        fs::write(dir.join("there"), "x").expect("a file");
        assert_eq!(meet(&dir, c"there"), (0, 0));
        assert_eq!(meet(&dir, c"gone"), (1, 0));
        // It is listed, and what was listed as a file cannot be opened as one.
        std::os::unix::fs::symlink("there", dir.join("changed")).expect("a link");
        assert_eq!(meet(&dir, c"changed"), (0, 1));
        fs::remove_dir_all(&dir).expect("removed");
    }

    #[test]
    fn a_place_is_known_by_its_mount_where_there_is_one() {
        let place = |mount, device| Place { mount, device };
        let subvolume = place(Some(7), 2);
        assert!(place(Some(7), 1).is(subvolume));
        assert!(!place(Some(8), 2).is(subvolume));
        assert!(place(None, 2).is(subvolume));
        assert!(!place(None, 1).is(subvolume));
    }
}
