//! Asking one server for the time (SNTP, RFC 4330, in packets of NTP version 4, RFC 5905).
//!
//! The transmit time of a request is 64 random bits instead of a time: nobody learns the machine's clock, and nobody who
//! does not see the request can answer it. The socket is connected, so that the kernel passes on packets of that address
//! and port alone, and is closed after the answer.

use super::now_us;
use rustls::crypto::ring;
use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};
use tokio::{
    net::UdpSocket,
    time::{Instant, timeout_at},
};

/// Length of a packet without extensions.
const LEN: usize = 48;
/// Version 4, mode 3: a client.
const REQUEST: u8 = 4 << 3 | 3;
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Most packets that are looked at for one answer.
const MAX_PACKETS: usize = 16;
/// Longest that packets may travel, in microseconds: half of it is how wrong the answer can be.
const MAX_ROUND_TRIP_US: i64 = 1_000_000;
/// Longest distance of the server from its own source that is taken, in units of 2⁻¹⁶ s: one second.
const MAX_DISTANCE: u32 = 1 << 16;
/// How long after its making a release is thought to run, in seconds: 30 years. A later time is a wrong one.
const LIFE: i64 = 30 * 365 * 24 * 3600;
/// Seconds from 1900 to 1970.
const TO_1970: i64 = 2_208_988_800;

/// What one server told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sample {
    /// By how much the machine's clock is behind, in microseconds.
    pub offset_us: i64,
    /// How long the packets travelled, in microseconds.
    pub round_trip_us: i64,
}

/// Why a server did not tell the time.
#[derive(Debug, thiserror::Error)]
pub(super) enum SntpError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the system gives no random numbers")]
    Random,
    #[error("no answer")]
    Silent,
    #[error("it does not know the time itself")]
    Unsynchronised,
    #[error("it asks not to be asked")]
    Refused,
    #[error("its answer is not one of NTP")]
    Form,
    #[error("its answer travelled too long to be exact")]
    Slow,
    #[error("it is too far from its own source to be exact")]
    Distant,
    #[error("it tells a time before this release was made")]
    Early,
    #[error("it tells a time more than 30 years after this release was made")]
    Late,
}

/// Asks a server. `floor` is when the release was made, seconds since 1970.
///
/// # Errors
/// [`SntpError`].
pub(super) async fn ask(server: SocketAddr, floor: u64) -> Result<Sample, SntpError> {
    let mut nonce = [0; 8];
    ring::default_provider().secure_random.fill(&mut nonce).map_err(|_| SntpError::Random)?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    socket.connect(server).await?;
    let (sent_us, sent) = (now_us(), Instant::now());
    socket.send(&request(nonce)).await?;
    let mut buffer = [0; 2 * LEN];
    for _ in 0..MAX_PACKETS {
        let received = timeout_at(sent + PATIENCE, socket.recv(&mut buffer)).await;
        let length = received.map_err(|_| SntpError::Silent)??;
        // The clock may be set meanwhile; how long it took is measured by another one.
        let took_us = i64::try_from(sent.elapsed().as_micros()).unwrap_or(i64::MAX);
        let packet = buffer.get(..length).unwrap_or_default();
        if field(packet, 24) == Some(nonce) {
            return read(packet, sent_us, took_us, floor);
        }
        // Not an answer to this request: whoever sent it did not see it.
    }
    Err(SntpError::Silent)
}

fn request(nonce: [u8; 8]) -> [u8; LEN] {
    let mut packet = [0; LEN];
    packet[0] = REQUEST;
    packet[40..].copy_from_slice(&nonce);
    packet
}

/// What an answer tells that came `took_us` after the request left at `sent_us`, both in microseconds.
fn read(packet: &[u8], sent_us: i64, took_us: i64, floor: u64) -> Result<Sample, SntpError> {
    let [head, stratum, ..] = *packet else { return Err(SntpError::Form) };
    let (leap, version, mode) = (head >> 6, head >> 3 & 7, head & 7);
    if packet.len() < LEN || !(3..=4).contains(&version) || mode != 4 {
        return Err(SntpError::Form);
    }
    match (leap, stratum) {
        (_, 0) => return Err(SntpError::Refused),
        (3, _) | (_, 16..) => return Err(SntpError::Unsynchronised),
        _ => {}
    }
    let distance = |at| field(packet, at).map(u32::from_be_bytes).ok_or(SntpError::Form);
    if distance(4)? > MAX_DISTANCE || distance(8)? > MAX_DISTANCE {
        return Err(SntpError::Distant);
    }
    let time = |at| field(packet, at).and_then(microseconds).ok_or(SntpError::Form);
    let (received, transmitted) = (time(32)?, time(40)?);
    let floor = i64::try_from(floor).unwrap_or(i64::MAX);
    match transmitted / 1_000_000 {
        second if second < floor => return Err(SntpError::Early),
        second if second > floor.saturating_add(LIFE) => return Err(SntpError::Late),
        _ => {}
    }
    let round_trip_us = took_us.saturating_sub(transmitted.saturating_sub(received));
    if transmitted < received || !(0..=MAX_ROUND_TRIP_US).contains(&round_trip_us) {
        return Err(SntpError::Slow);
    }
    let (there, back) = (received.saturating_sub(sent_us), transmitted.saturating_sub(sent_us.saturating_add(took_us)));
    Ok(Sample { offset_us: there.saturating_add(back) / 2, round_trip_us })
}

fn field<const N: usize>(packet: &[u8], at: usize) -> Option<[u8; N]> {
    packet.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// A time stamp in microseconds since 1970. Its seconds begin in 1900 and began again in 2036; RFC 4330, section 3, tells
/// the two by the first bit. Zero is no time.
fn microseconds(stamp: [u8; 8]) -> Option<i64> {
    let stamp = u64::from_be_bytes(stamp);
    let (seconds, fraction) = (i64::try_from(stamp >> 32).ok()?, stamp & 0xffff_ffff);
    let era = if stamp >> 63 == 1 { 0 } else { 1 << 32 };
    let micros = i64::try_from((fraction * 1_000_000) >> 32).ok()?;
    (stamp != 0).then_some((seconds + era - TO_1970) * 1_000_000 + micros)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use tokio::task::JoinHandle;

    /// A server whose clock is ahead of this machine's by so many seconds, and whose answers are changed before they leave.
    pub struct Server {
        pub address: SocketAddr,
        serving: JoinHandle<()>,
    }

    impl Drop for Server {
        fn drop(&mut self) {
            self.serving.abort();
        }
    }

    impl Server {
        pub async fn start(change: impl Fn([u8; LEN]) -> [u8; LEN] + Send + 'static, ahead: i64) -> Self {
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let address = socket.local_addr().unwrap();
            let serving = tokio::spawn(async move {
                let mut buffer = [0; 64];
                loop {
                    let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
                    assert_eq!((length, buffer[0]), (LEN, REQUEST));
                    let answer = change(answer(buffer[40..48].try_into().unwrap(), now_us() + ahead * 1_000_000));
                    socket.send_to(&answer, from).await.unwrap();
                }
            });
            Self { address, serving }
        }
    }

    fn answer(nonce: [u8; 8], at_us: i64) -> [u8; LEN] {
        let mut packet = [0; LEN];
        packet[0] = 4 << 3 | 4;
        packet[1] = 2;
        packet[24..32].copy_from_slice(&nonce);
        for at in [32, 40] {
            packet[at..at + 8].copy_from_slice(&stamp(at_us));
        }
        packet
    }

    fn stamp(at_us: i64) -> [u8; 8] {
        let seconds = u64::try_from(at_us / 1_000_000 + TO_1970).unwrap() & 0xffff_ffff;
        let fraction = (u64::try_from(at_us % 1_000_000).unwrap() << 32).div_ceil(1_000_000);
        (seconds << 32 | fraction).to_be_bytes()
    }

    const FLOOR: u64 = 1_700_000_000;

    async fn asked(change: impl Fn([u8; LEN]) -> [u8; LEN] + Send + 'static) -> Result<Sample, SntpError> {
        let server = Server::start(change, 5).await;
        ask(server.address, FLOOR).await
    }

    fn set(at: usize, bytes: &'static [u8]) -> impl Fn([u8; LEN]) -> [u8; LEN] + Send + 'static {
        move |mut packet| {
            packet[at..at + bytes.len()].copy_from_slice(bytes);
            packet
        }
    }

    #[tokio::test]
    async fn a_good_answer_tells_how_far_the_clock_is_off() {
        let sample = asked(|packet| packet).await.unwrap();
        assert!(sample.offset_us.abs_diff(5_000_000) < 500_000, "{sample:?}");
    }

    #[tokio::test]
    async fn answers_that_cannot_be_relied_on_are_not_taken() {
        assert!(matches!(asked(set(0, &[4 << 3 | 3])).await, Err(SntpError::Form)), "a client's packet");
        assert!(matches!(asked(set(0, &[7 << 3 | 4])).await, Err(SntpError::Form)), "another version");
        assert!(matches!(asked(set(0, &[0xc0 | 4 << 3 | 4])).await, Err(SntpError::Unsynchronised)));
        assert!(matches!(asked(set(1, &[16])).await, Err(SntpError::Unsynchronised)));
        assert!(matches!(asked(set(1, b"\0\0\0\0\0\0\0\0\0\0\0RATE")).await, Err(SntpError::Refused)));
        assert!(matches!(asked(set(4, &[0, 2])).await, Err(SntpError::Distant)));
        assert!(matches!(asked(set(40, &[0; 8])).await, Err(SntpError::Form)), "no time");
        assert!(matches!(asked(set(40, &[0x83, 0xaa, 0x7e, 0x80])).await, Err(SntpError::Early)), "1970");
        assert!(matches!(asked(set(40, &[0x7f, 0xff, 0xff, 0xff])).await, Err(SntpError::Late)), "2104");
        assert!(matches!(asked(set(32, &[0x83, 0xaa, 0x7e, 0x80])).await, Err(SntpError::Slow)));
    }

    #[tokio::test]
    async fn an_answer_to_another_request_is_no_answer() {
        let begin = Instant::now();
        assert!(matches!(asked(set(24, &[1, 2, 3, 4, 5, 6, 7, 8])).await, Err(SntpError::Silent)));
        assert!(begin.elapsed() >= PATIENCE);
    }

    #[test]
    fn time_stamps_go_on_after_2036() {
        for second in [0, 1_700_000_000, 2_085_978_495, 2_085_978_496, 4_000_000_000_i64] {
            let at = second * 1_000_000 + 250_000;
            assert_eq!(microseconds(stamp(at)).map(|found| found.abs_diff(at) <= 1), Some(true), "{second}");
        }
        assert_eq!(microseconds([0; 8]), None);
    }

    #[test]
    fn short_packets_are_refused() {
        let whole = answer([7; 8], 1_800_000_000_000_000);
        for length in 0..LEN {
            assert!(read(&whole[..length], 0, 0, FLOOR).is_err(), "{length}");
        }
        assert!(read(&whole, 0, 0, FLOOR).is_ok());
    }
}
