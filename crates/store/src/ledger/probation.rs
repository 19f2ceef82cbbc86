//! A look at a file that must not be changed by looking.

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};
use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

const PAGE: u64 = 4096;

/// Reads from the file, keeps what is written in memory, and locks the file like any other user of it.
#[derive(Debug)]
pub(crate) struct Probation {
    file: FileBackend,
    kept: Mutex<Option<Kept>>,
}

/// What was written.
#[derive(Debug)]
struct Kept {
    len: u64,
    /// How much of the file can still be seen: less than all once it was shortened.
    seen: u64,
    pages: BTreeMap<u64, Box<[u8]>>,
}

impl Probation {
    pub(crate) const fn over(file: FileBackend) -> Self {
        Self { file, kept: Mutex::new(None) }
    }

    /// Runs `work` on what was kept so far. The length is asked of the file late, when it is locked.
    fn with_kept<T>(&self, work: impl FnOnce(&mut Kept) -> io::Result<T>) -> io::Result<T> {
        let mut kept: MutexGuard<'_, Option<Kept>> = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = match &mut *kept {
            Some(kept) => kept,
            empty => {
                let len = self.file.len()?;
                empty.insert(Kept { len, seen: len, pages: BTreeMap::new() })
            }
        };
        work(kept)
    }

    fn page_of_file(&self, number: u64, seen: u64) -> io::Result<Box<[u8]>> {
        let mut page = vec![0; PAGE as usize].into_boxed_slice();
        let offset = number.saturating_mul(PAGE);
        let visible = usize::try_from(seen.saturating_sub(offset).min(PAGE)).unwrap_or(0);
        if let Some(part) = page.get_mut(..visible).filter(|part| !part.is_empty()) {
            self.file.read(offset, part)?;
        }
        Ok(page)
    }
}

/// The parts of pages that `len` bytes at `offset` cover: page number, first byte within the page, and how many.
fn parts(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let end = offset.saturating_add(len as u64);
    (offset / PAGE..end.div_ceil(PAGE)).map(move |number| {
        let start = number.saturating_mul(PAGE);
        let first = offset.saturating_sub(start).min(PAGE);
        let last = end.saturating_sub(start).min(PAGE);
        (number, first as usize, last.saturating_sub(first) as usize)
    })
}

fn out_of_range() -> io::Error {
    io::Error::from(io::ErrorKind::UnexpectedEof)
}

impl StorageBackend for Probation {
    fn len(&self) -> io::Result<u64> {
        self.with_kept(|kept| Ok(kept.len))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.with_kept(|kept| {
            if offset.saturating_add(out.len() as u64) > kept.len {
                return Err(out_of_range());
            }
            let mut rest = out;
            for (number, first, count) in parts(offset, rest.len()) {
                let (target, after) = rest.split_at_mut_checked(count).ok_or_else(out_of_range)?;
                let of_file;
                let page = match kept.pages.get(&number) {
                    Some(page) => page,
                    None => {
                        of_file = self.page_of_file(number, kept.seen)?;
                        &of_file
                    }
                };
                target.copy_from_slice(
                    page.get(first..).and_then(|p| p.get(..count)).ok_or_else(out_of_range)?,
                );
                rest = after;
            }
            Ok(())
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.with_kept(|kept| {
            let mut rest = data;
            for (number, first, count) in parts(offset, data.len()) {
                let (source, after) = rest.split_at_checked(count).ok_or_else(out_of_range)?;
                if !kept.pages.contains_key(&number) {
                    kept.pages.insert(number, self.page_of_file(number, kept.seen)?);
                }
                let page = kept.pages.get_mut(&number).and_then(|p| p.get_mut(first..)?.get_mut(..count));
                page.ok_or_else(out_of_range)?.copy_from_slice(source);
                rest = after;
            }
            kept.len = kept.len.max(offset.saturating_add(data.len() as u64));
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with_kept(|kept| {
            if len < kept.len {
                // What is cut off must read as zero should the length grow again.
                kept.pages.retain(|number, _| number.saturating_mul(PAGE) < len);
                if let Some(page) = kept.pages.get_mut(&(len / PAGE))
                    && let Some(cut) = page.get_mut((len % PAGE) as usize..)
                {
                    cut.fill(0);
                }
                kept.seen = kept.seen.min(len);
            }
            kept.len = len;
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}
