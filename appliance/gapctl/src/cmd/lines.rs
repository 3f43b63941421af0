//! An answer that comes as lines, put together wherever it was cut.

use crate::client::ClientError;
use std::ops::ControlFlow;

/// Longest line, in bytes.
const MAX_LINE: usize = 1 << 20;

/// The line that has begun.
#[derive(Debug, Default)]
pub struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    /// Hands on each line that ends in this piece, with its end, until `take` breaks off.
    ///
    /// # Errors
    /// [`ClientError::LineTooLong`].
    pub fn push(
        &mut self,
        piece: &[u8],
        mut take: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, ClientError> {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            if self.begun.len().saturating_add(part.len()) > MAX_LINE {
                return Err(ClientError::LineTooLong(MAX_LINE));
            }
            self.begun.extend_from_slice(part);
            if part.ends_with(b"\n") {
                let taken = take(&self.begun);
                self.begun.clear();
                if taken.is_break() {
                    return Ok(taken);
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_wherever_they_were_cut() {
        let whole = b"one\n\ntwo\nthr";
        for size in 1..=whole.len() {
            let (mut lines, mut seen) = (Lines::default(), Vec::new());
            for piece in whole.chunks(size) {
                let pushed = lines.push(piece, |line| {
                    seen.push(line.to_vec());
                    ControlFlow::Continue(())
                });
                assert!(pushed.unwrap().is_continue());
            }
            assert_eq!(seen, [&b"one\n"[..], b"\n", b"two\n"], "{size}");
        }
    }

    #[test]
    fn a_line_without_end_is_given_up() {
        let mut lines = Lines::default();
        let piece = vec![b'x'; MAX_LINE / 2];
        let mut push = |piece: &[u8]| lines.push(piece, |_| ControlFlow::Continue(()));
        assert!(push(&piece).is_ok() && push(&piece).is_ok());
        assert!(matches!(push(b"x"), Err(ClientError::LineTooLong(_))));
    }

    #[test]
    fn it_ends_where_it_is_broken_off() {
        let mut seen = 0;
        let pushed = Lines::default().push(b"a\nb\n", |_| {
            seen += 1;
            ControlFlow::Break(())
        });
        assert!(pushed.unwrap().is_break() && seen == 1);
    }
}
