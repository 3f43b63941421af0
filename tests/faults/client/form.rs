//! `multipart/form-data` (RFC 7578) with texts and one file, which is read as it is sent.

use std::{
    fs::File,
    io::{self, Cursor, Read},
};

/// A form; reading it gives its bytes.
pub struct Form {
    boundary: String,
    length: u64,
    parts: Box<dyn Read>,
}

impl Form {
    /// A form with these texts, and in the field `name` the next `length` bytes of `file`.
    pub fn new(texts: &[(&str, &str)], name: &str, filename: &str, file: File, length: u64) -> Self {
        let boundary = format!("gap-{:032x}", rand::random::<u128>());
        let mut head = String::new();
        for (field, value) in texts {
            head += &format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{field}\"\r\n\r\n{value}\r\n");
        }
        let filename = escaped(filename);
        head += &format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{filename}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
        let tail = format!("\r\n--{boundary}--\r\n");
        let around = u64::try_from(head.len().saturating_add(tail.len())).unwrap_or(u64::MAX);
        let parts = Cursor::new(head.into_bytes()).chain(file.take(length)).chain(Cursor::new(tail.into_bytes()));
        Self { boundary, length: length.saturating_add(around), parts: Box::new(parts) }
    }

    /// Its media type.
    pub fn content_type(&self) -> String {
        format!("multipart/form-data; boundary={}", self.boundary)
    }

    /// Bytes in all.
    pub const fn len(&self) -> u64 {
        self.length
    }
}

impl Read for Form {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.parts.read(buffer)
    }
}

/// A file's name as browsers write it into a form.
fn escaped(name: &str) -> String {
    name.replace('"', "%22").replace('\r', "%0D").replace('\n', "%0A")
}
