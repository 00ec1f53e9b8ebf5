//! A disk of memory for the buffer: it never refuses, and its files can be seen and changed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use supervisor::buffer::disk::{Blocks, Disk};

/// Files by name. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk(pub Rc<RefCell<BTreeMap<String, Vec<u8>>>>);

/// One of its files.
#[derive(Debug)]
pub struct MemoryFile(MemoryDisk, String);

impl Disk for MemoryDisk {
    type File = MemoryFile;

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.borrow().keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<MemoryFile> {
        self.0.borrow_mut().insert(name.into(), Vec::new());
        self.open(name)
    }

    fn open(&self, name: &str) -> io::Result<MemoryFile> {
        let known = self.0.borrow().contains_key(name);
        if known { Ok(MemoryFile(self.clone(), name.into())) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let file = self.0.borrow_mut().remove(from).ok_or(io::ErrorKind::NotFound)?;
        self.0.borrow_mut().insert(to.into(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.borrow_mut().remove(name).map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Blocks for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let files = self.0.0.borrow();
        let bytes = files.get(&self.1).and_then(|bytes| bytes.get(offset as usize..)).unwrap_or_default();
        let count = bytes.len().min(buffer.len());
        buffer[..count].copy_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut files = self.0.0.borrow_mut();
        let file = files.entry(self.1.clone()).or_default();
        let end = offset as usize + bytes.len();
        file.resize(file.len().max(end), 0);
        file[offset as usize..end].copy_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.0.borrow().get(&self.1).map_or(0, |bytes| bytes.len() as u64))
    }

    fn reserve(&mut self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn trim(&mut self) -> io::Result<()> {
        Ok(())
    }
}
