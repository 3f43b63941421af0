//! One request over a connection: sent as fast as the line takes it, and given up when nothing moves any more.

use super::ClientError;
use http_body_util::Full;
use hyper::{Request, Response, body::Bytes, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use std::{
    io::{self, IoSlice},
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, timeout_at},
};

/// Sends a request and takes the head of its answer; none where nothing was sent and nothing answered for `patience`. A slow
/// line may take as long as it needs.
pub(super) async fn exchange<S>(
    stream: S,
    message: Request<Full<Bytes>>,
    patience: Duration,
) -> Result<Option<Response<Incoming>>, ClientError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let sent = Moved::default();
    let stream = Watched { stream, sent: sent.clone() };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(ClientError::Broken)?;
    let connection = tokio::spawn(connection.with_upgrades());
    let answered = sent.patient(patience, sender.send_request(message)).await;
    if answered.is_none() {
        // The next attempt has the line for itself.
        connection.abort();
    }
    answered.transpose().map_err(ClientError::Broken)
}

/// When something moved last.
#[derive(Debug, Clone)]
struct Moved(Arc<Mutex<Instant>>);

impl Default for Moved {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }
}

impl Moved {
    fn now(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is `wanted`; nothing when nothing moved for `patience`.
    async fn patient<T>(&self, patience: Duration, wanted: impl Future<Output = T>) -> Option<T> {
        let mut wanted = pin!(wanted);
        loop {
            let last = self.last();
            if let Ok(there) = timeout_at(last + patience, wanted.as_mut()).await {
                return Some(there);
            }
            if self.last() == last {
                return None;
            }
        }
    }
}

/// A stream that says when it took something.
struct Watched<S> {
    stream: S,
    sent: Moved,
}

impl<S: Unpin> Watched<S> {
    fn stream(self: Pin<&mut Self>) -> Pin<&mut S> {
        Pin::new(&mut self.get_mut().stream)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_read(context, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let taken = ready!(self.as_mut().stream().poll_write(context, bytes));
        self.sent.now();
        Poll::Ready(taken)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let taken = ready!(self.as_mut().stream().poll_write_vectored(context, pieces));
        self.sent.now();
        Poll::Ready(taken)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
        time::sleep,
    };

    const LENGTH: usize = 40 << 10;
    const PATIENCE: Duration = Duration::from_secs(1);

    /// Sends [`LENGTH`] bytes over a line that holds 1 KiB, to one who reads `most` of them in pieces with pauses.
    async fn over_a_slow_line(most: usize) -> (Result<Option<Response<Incoming>>, ClientError>, Duration) {
        let (ours, theirs) = duplex(1 << 10);
        tokio::spawn(read_slowly(theirs, most));
        let message = Request::post("/parts").header("host", "rack4").body(Bytes::from(vec![b'x'; LENGTH]).into());
        let began = Instant::now();
        (exchange(ours, message.unwrap(), PATIENCE).await, began.elapsed())
    }

    async fn read_slowly(mut line: DuplexStream, most: usize) {
        let (mut piece, mut read) = (vec![0; 1 << 10], 0);
        while read < most {
            read += line.read(&mut piece).await.unwrap();
            sleep(Duration::from_millis(50)).await;
        }
        if read >= LENGTH {
            line.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        }
        sleep(Duration::from_secs(60)).await;
    }

    #[tokio::test]
    async fn a_line_may_be_as_slow_as_it_is() {
        let (answer, took) = over_a_slow_line(LENGTH).await;
        assert!(took > PATIENCE && answer.unwrap().is_some_and(|answer| answer.status().is_success()), "{took:?}");
    }

    #[tokio::test]
    async fn one_that_takes_nothing_more_is_given_up() {
        let (answer, took) = over_a_slow_line(LENGTH / 4).await;
        assert!(took > PATIENCE && answer.unwrap().is_none(), "{took:?}");
    }
}
