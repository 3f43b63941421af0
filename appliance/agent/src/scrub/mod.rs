//! Scrubbing: reading every blob of the release through once, so that a rotten block shows before somebody needs it.
//!
//! dm-verity checks each block as it is read and answers a damaged one with an error. The scrubber reads in the
//! background: with idle priority, at a bounded speed, a quarter of the time at most, past the page cache where the device
//! can do that (else a block that was read before the medium rotted would look well, and the cache would fill with what
//! nobody asked for).

mod blocks;
pub mod layers;
mod state;

pub use blocks::DirectFile;
pub use layers::Layer;
pub use state::{Board, LayerProgress, LayerState, Range};

use crate::console;
use gap_format::ReadAt;
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy, thread_native_id,
};

/// What is read at once, in bytes.
const CHUNK: usize = 1 << 20;
/// Unit in which damage is told, in bytes: the verity block.
const BLOCK: usize = 4096;
/// After so many unreadable blocks in a row the rest of the device is given up: the medium is gone.
const GIVE_UP_AFTER: u64 = 1024;
/// Bytes a second when nothing else is said.
pub const DEFAULT_SPEED: u64 = 64 << 20;

/// How many times as long as a piece took is rested after it.
const RESTS: u32 = 3;
/// Longest rest after a piece that took long.
const LONGEST_REST: Duration = Duration::from_secs(1);

/// Opens the device of a layer for reading.
pub type Open = dyn Fn(&Layer) -> io::Result<Box<dyn ReadAt>> + Send;

/// Lists further layers, once the thread runs that reads them.
pub type More = dyn FnOnce(&[Layer]) -> Vec<Layer> + Send;

/// Starts the background thread, which reads the layers of the board and then `more` of them. It ends when all is read, or
/// soon after `stop` becomes true.
///
/// # Errors
/// What the system said when it gives no thread.
pub fn start(
    board: Arc<Board>,
    speed: u64,
    stop: Arc<AtomicBool>,
    more: Box<More>,
    open: Box<Open>,
) -> io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name("scrub".into()).stack_size(256 << 10).spawn(move || {
        become_idle();
        let mut pace = Pace::new(speed);
        let mut layers: Vec<Layer> = board.layers().into_iter().map(|(layer, _)| layer).collect();
        let others = more(&layers);
        board.add(others.clone());
        layers.extend(others);
        for (number, layer) in layers.iter().enumerate() {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            scrub_layer(number, layer, &board, &mut pace, &stop, &*open);
        }
        if !stop.load(Ordering::Relaxed) && !board.is_damaged() {
            console::say(format_args!("all {} layers are read and verified", layers.len()));
        }
    })
}

/// The idle scheduling class, which is the idle I/O class too as long as no other is set. A kernel that refuses it
/// only makes the scrubber a little less polite.
fn become_idle() {
    let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    drop(set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, policy));
}

fn scrub_layer(number: usize, layer: &Layer, board: &Board, pace: &mut Pace, stop: &AtomicBool, open: &Open) {
    board.begin(number);
    let device = match open(layer) {
        Ok(device) => device,
        Err(error) => {
            console::say(format_args!("layer {}/{} cannot be opened: {error}", layer.image, layer.name));
            board.damage(number, Range { offset: 0, length: layer.size });
            board.end(number);
            return;
        }
    };
    let mut buffer = vec![0; CHUNK];
    let (mut offset, mut bad_in_a_row) = (0, 0);
    while offset < layer.size {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let wanted = usize::try_from(layer.size - offset).unwrap_or(CHUNK).min(CHUNK);
        let Some(part) = buffer.get_mut(..wanted) else { return };
        let length = as_u64(wanted);
        if read(&*device, part, offset).is_ok() {
            bad_in_a_row = 0;
        } else {
            bad_in_a_row = search_chunk(&*device, part, offset, bad_in_a_row, |range| {
                if board.damage(number, range) {
                    console::say(format_args!(
                        "layer {}/{}: the block at byte {} is damaged: reading it gives an error, never wrong bytes",
                        layer.image, layer.name, range.offset
                    ));
                }
            });
        }
        offset += length;
        board.checked(number, offset);
        if bad_in_a_row >= GIVE_UP_AFTER {
            console::say(format_args!(
                "layer {}/{}: nothing can be read from byte {offset} on",
                layer.image, layer.name
            ));
            board.damage(number, Range { offset, length: layer.size - offset });
            break;
        }
        pace.after(length);
    }
    board.end(number);
}

/// Reads the chunk block by block and tells each block that fails. Returns how many in a row failed up to its end.
fn search_chunk(
    device: &dyn ReadAt,
    chunk: &mut [u8],
    start: u64,
    mut bad_in_a_row: u64,
    mut damaged: impl FnMut(Range),
) -> u64 {
    let mut offset = start;
    for block in chunk.chunks_mut(BLOCK) {
        let length = as_u64(block.len());
        match read(device, block, offset) {
            Ok(()) => bad_in_a_row = 0,
            Err(_) => {
                bad_in_a_row += 1;
                damaged(Range { offset, length });
            }
        }
        offset += length;
    }
    bad_in_a_row
}

fn read(device: &dyn ReadAt, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    loop {
        match device.read_exact_at(buffer, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn as_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// Keeps a speed by sleeping, and sleeps at least three times as long as was read: on a slow medium or processor others would have to
/// wait, whose reads are checked by threads of the kernel that know no priorities.
struct Pace {
    speed: u64,
    started: Instant,
    done: u64,
    woke: Instant,
}

impl Pace {
    fn new(speed: u64) -> Self {
        let now = Instant::now();
        Self { speed: speed.max(1), started: now, done: 0, woke: now }
    }

    /// Accounts for `length` bytes and sleeps as long as they came too early.
    fn after(&mut self, length: u64) {
        self.done = self.done.saturating_add(length);
        let due_ms = u128::from(self.done) * 1000 / u128::from(self.speed);
        let due = Duration::from_millis(u64::try_from(due_ms).unwrap_or(u64::MAX));
        let rest = self.woke.elapsed().saturating_mul(RESTS).min(LONGEST_REST);
        thread::sleep(due.saturating_sub(self.started.elapsed()).max(rest));
        self.woke = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gap_format::Digest;

    /// A device on which the blocks that begin at these offsets fail.
    struct Rotten(Vec<u64>);

    impl ReadAt for Rotten {
        fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
            let end = offset + as_u64(buf.len());
            let hit = self.0.iter().any(|bad| *bad < end && bad + as_u64(BLOCK) > offset);
            if hit { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
        }
    }

    fn layer(size: u64) -> Layer {
        let digest = Digest::of(b"x");
        let source = layers::Source::Device("/dev/dm-1".into());
        Layer { image: "os".into(), name: "base".into(), digest, size, verity_root: digest, source }
    }

    fn scrubbed(size: u64, bad: Vec<u64>) -> LayerProgress {
        let board = Arc::new(Board::new(vec![layer(size)]));
        let open: Box<Open> = Box::new(move |_| Ok(Box::new(Rotten(bad.clone()))));
        start(board.clone(), u64::MAX, Arc::default(), Box::new(|_| Vec::new()), open).unwrap().join().unwrap();
        board.layers().remove(0).1
    }

    #[test]
    fn a_sound_layer_is_verified() {
        let progress = scrubbed(3 * (1 << 20) + 8192, vec![]);
        assert_eq!((progress.state, progress.checked_bytes), (LayerState::Verified, 3 * (1 << 20) + 8192));
    }

    #[test]
    fn damaged_blocks_are_found_exactly_and_neighbours_are_told_as_one() {
        let progress = scrubbed(4 << 20, vec![4096, 8192, (2 << 20) + 4096, (4 << 20) - 4096]);
        assert_eq!(progress.state, LayerState::Damaged);
        let expected = [(4096, 8192), ((2 << 20) + 4096, 4096), ((4 << 20) - 4096, 4096)];
        assert_eq!(progress.damaged.iter().map(|r| (r.offset, r.length)).collect::<Vec<_>>(), expected);
        assert_eq!(progress.checked_bytes, 4 << 20);
    }

    #[test]
    fn a_medium_that_is_gone_is_given_up() {
        let size = 1 << 40;
        let progress = scrubbed(size, (0..(16 << 20) / 4096).map(|n| n * 4096).collect());
        assert_eq!(progress.damaged.iter().map(|r| r.length).sum::<u64>(), size);
        assert!(progress.checked_bytes < 16 << 20);
    }

    #[test]
    fn a_device_that_cannot_be_opened_is_damaged_as_a_whole() {
        let board = Arc::new(Board::new(vec![layer(8192)]));
        let open: Box<Open> = Box::new(|_| Err(io::ErrorKind::NotFound.into()));
        start(board.clone(), u64::MAX, Arc::default(), Box::new(|_| Vec::new()), open).unwrap().join().unwrap();
        assert!(board.is_damaged());
    }

    #[test]
    fn further_layers_are_read_after_the_first_ones() {
        let board = Arc::new(Board::new(vec![layer(8192)]));
        let more: Box<More> = Box::new(|known| vec![Layer { name: known[0].name.clone() + "2", ..layer(1 << 20) }]);
        let open: Box<Open> = Box::new(|layer| {
            let bad = if layer.name == "base2" { vec![4096] } else { vec![] };
            Ok(Box::new(Rotten(bad)))
        });
        start(board.clone(), u64::MAX, Arc::default(), more, open).unwrap().join().unwrap();
        let states: Vec<_> = board.layers().into_iter().map(|(_, progress)| progress.state).collect();
        assert_eq!(states, [LayerState::Verified, LayerState::Damaged]);
    }

    #[test]
    fn the_speed_is_bounded() {
        let began = Instant::now();
        let mut pace = Pace::new(1 << 20);
        for _ in 0..4 {
            pace.after(1 << 16);
        }
        assert!(began.elapsed() >= Duration::from_millis(250));
    }
}
