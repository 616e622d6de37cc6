//! A request in a backend's hands. The slot belongs to the backend's work, not to our request: when
//! we give up on a request (a timeout, a client that leaves in the middle of a stream), the backend
//! goes on with it, and another one would overlap. So the lease lives on until the backend has let go
//! of the connection.
//!
//! How we know that it has, by how far the request had come:
//! - nothing was sent: there is no work, the slot is free at once;
//! - the whole request was sent, no answer yet: we wait for the answer's first byte or the close,
//!   and say nothing: some servers close at the first sign of a client gone and work on all the
//!   same (asyncio ones, for example), and the close would fool us. The system is asked whether that byte is
//!   behind us: an answer that came in the moment in which a deadline passed may have been read, and nobody told;
//! - part of the request was sent, or part of the answer came: we send FIN, so that a server which
//!   looks stops early, and read on until it closes. A server that only notices when a write fails
//!   (most synchronous ones) gets a reset after [`DRAIN_BYTES_MAX`] or [`DRAIN_TIME_MAX`], and the
//!   slot is kept for as long as its longest pause: its next write will have come by then.
//!
//! The last one is not exact for two kinds of servers, and nothing we could see would make it so: one
//! that closes at FIN and works on, and one that computes in silence after more than a mebibyte.
//!
//! `busy_limit` ends every wait. It is all there is where the system gave the connection up because the backend
//! took nothing (`timeouts.write`): then there is no close to be seen. (A client that leaves before its answer begins does not end up
//! here: its request goes on to its end, see `door::ClientStream`.)

use std::io;
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use pingora::protocols::l4::ext::get_tcp_info;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};

use super::{Backend, BackendSocket, Lease};
use crate::policy::outlier::Misstep;

/// How much of an abandoned answer is read before the connection is reset.
const DRAIN_BYTES_MAX: usize = 1 << 20;

/// How long an abandoned answer is read, while it goes on, before the connection is reset.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(2);

/// How far a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// Not one byte was sent.
    Unsent,
    /// Some of it was sent.
    Sending,
    /// All of it was sent.
    Sent,
    /// The answer has begun.
    Answering,
}

/// A lease, and the connection on which it is used.
pub struct Work {
    /// `None` once the work is done.
    lease: Option<Lease>,
    socket: Option<BackendSocket>,
    /// The connection was made for this request.
    is_fresh: bool,
    stage: Stage,
    /// Something of it speaks against the backend.
    has_erred: bool,
    /// The answer that was begun is not meant to end.
    is_endless: bool,
    /// There was an interim answer.
    had_interim: bool,
    /// The system gave the connection up: nobody can tell when the backend lets go of it.
    is_cut_off: bool,
}

impl Work {
    /// A request that is about to be sent.
    pub fn new(lease: Lease) -> Self {
        Self {
            lease: Some(lease),
            socket: None,
            is_fresh: false,
            stage: Stage::Unsent,
            has_erred: false,
            is_endless: false,
            had_interim: false,
            is_cut_off: false,
        }
    }

    /// Something happened that speaks against the backend, which is told so once. Needs a tokio runtime.
    pub fn erred(&mut self, misstep: Misstep) {
        if let Some(lease) = &self.lease
            && !self.has_erred
        {
            lease.upstream().erred(lease, misstep);
        }
        self.has_erred = true;
    }

    /// The backend has begun an answer that is not meant to end.
    pub fn begin_endless(&mut self) {
        self.is_endless = true;
        if let Some(lease) = self.lease.as_ref().filter(|_| !self.has_erred) {
            lease.backend().errors().note_begun();
            lease.went_well();
        }
    }

    /// Whether the answer that was begun is not meant to end.
    pub fn is_endless(&self) -> bool {
        self.is_endless
    }

    /// The client has left, which is what ends an answer that is not meant to end otherwise.
    pub fn left_by_client(&self) {
        if let Some(lease) = &self.lease
            && self.is_endless
            && !self.has_erred
        {
            lease.backend().count_left();
        }
    }

    /// Whether something of it speaks against the backend.
    pub fn has_erred(&self) -> bool {
        self.has_erred
    }

    /// The slot that is in use, until the work is done.
    pub fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref()
    }

    /// The connection stands; it was made for this request, or had served others. `false` if it must not be used.
    ///
    /// Of one that had served others Pingora has looked whether it has ended or has something unread, but it sees no
    /// more than the runtime has told it. So the system is asked, which costs a call: the request might be lost, or what
    /// is unread be taken for its answer.
    pub fn connected(
        &mut self,
        socket: Option<BackendSocket>,
        is_fresh: bool,
        now: Instant,
    ) -> bool {
        if let (Some(socket), Some(lease)) = (&socket, &self.lease) {
            let limit = lease.upstream().params().timeouts.idle;
            if !socket.take(limit, now) {
                lease.backend().close_late_connections(now);
                return false;
            }
            if !is_fresh && !is_silent(socket) {
                return false;
            }
        }
        self.socket = socket;
        self.is_fresh = is_fresh;
        true
    }

    /// From now on, the backend may have seen some of the request.
    pub fn sending(&mut self) {
        self.stage = Stage::Sending;
    }

    /// The backend may have seen some of the request.
    pub fn is_sent(&self) -> bool {
        self.stage >= Stage::Sending
    }

    /// A connection made for this request took some of it and gave not one byte of an answer.
    pub fn is_fresh_and_unanswered(&self) -> bool {
        self.is_fresh && self.is_unanswered()
    }

    /// A connection that had served others gave not one byte of an answer: it had ended before.
    pub fn is_stale(&self) -> bool {
        !self.is_fresh && self.is_unanswered()
    }

    fn is_unanswered(&self) -> bool {
        self.is_sent() && self.stage < Stage::Answering && !self.had_interim
    }

    /// The backend has the whole request.
    pub fn sent(&mut self) {
        self.stage = self.stage.max(Stage::Sent);
    }

    /// The backend has sent an interim answer: it has the request, and is not done.
    pub fn interim(&mut self) {
        self.had_interim = true;
    }

    /// The backend has begun to answer.
    pub fn answering(&mut self) {
        self.stage = Stage::Answering;
    }

    /// What comes on this connection after the answer may still belong to it: it serves no other request.
    pub fn spend_connection(&self) {
        self.socket
            .as_ref()
            .inspect(|socket| socket.serve_no_other());
    }

    /// The backend took nothing for so long that the connection is given up. It may be at work all the same,
    /// and if the system has closed the connection, there is nothing left by which it could be seen to end.
    pub fn cut_off(&mut self) {
        self.is_cut_off = true;
    }

    /// The backend's last byte was read: the slot is free. Returns the connection, which is not free
    /// before the client has taken the answer.
    pub fn done(&mut self) -> Option<BackendSocket> {
        self.lease = None;
        self.socket.take()
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let (Some(lease), Some(socket)) = (self.lease.take(), self.socket.take()) else {
            return;
        };
        let looked = peek(&socket);
        let is_closed = is_end(looked);
        self.is_cut_off |= looked == Err(Errno::TIMEDOUT);
        if self.stage == Stage::Unsent || is_closed && !self.is_cut_off {
            return;
        }
        // Without a runtime the process is ending, and the slots with it.
        if let Ok(runtime) = Handle::try_current() {
            lease.abandon();
            let socket = (!is_closed).then_some(socket);
            runtime.spawn(keep(lease, socket, (self.stage, self.had_interim)));
        }
    }
}

/// Holds the lease until the backend has let go of the connection; without one, for as long as it is believed
/// to be at work.
async fn keep(lease: Lease, socket: Option<BackendSocket>, come: (Stage, bool)) {
    let limit = lease.upstream().params().busy_limit;
    let Some(socket) = socket else {
        return sleep(limit).await;
    };
    let let_go = async {
        if let Err(error) = until_let_go(socket, come, lease.backend()).await {
            tracing::warn!(backend = %lease.backend().name(), %error, "an abandoned connection can't be watched");
            std::future::pending::<()>().await;
        }
    };
    let _ = timeout(limit, let_go).await;
}

async fn until_let_go(
    socket: BackendSocket,
    (stage, had_interim): (Stage, bool),
    backend: &Backend,
) -> io::Result<()> {
    let mut stream = TcpStream::from_std(socket.into_std()?)?;
    if stage == Stage::Sent && (had_interim || !has_answered(&stream)) {
        stream.readable().await?;
    }
    // Fails only where the backend has closed already.
    let _ = stream.shutdown().await;
    if let Some(longest_pause) = drain(&mut stream, backend).await {
        // The last descriptor: data that still comes is answered with a reset.
        drop(stream);
        sleep(longest_pause).await;
    }
    Ok(())
}

/// Whether the last thing on a connection came from the backend. Not known, so `false`, of a Unix socket, and for some
/// milliseconds after what was sent.
fn has_answered(stream: &TcpStream) -> bool {
    get_tcp_info(stream.as_raw_fd())
        .is_ok_and(|info| info.tcpi_last_data_recv < info.tcpi_last_data_sent)
}

/// Reads until the backend closes. If it does not stop, returns its longest pause so far.
async fn drain(stream: &mut TcpStream, backend: &Backend) -> Option<Duration> {
    let mut buffer = [0; 4096];
    let begun = Instant::now();
    let (mut bytes, mut last, mut longest_pause) = (0, begun, Duration::ZERO);
    while bytes <= DRAIN_BYTES_MAX && begun.elapsed() <= DRAIN_TIME_MAX {
        match stream.read(&mut buffer).await {
            // The system gave it up (`timeouts.write`), and nobody can tell when the backend is done.
            Err(error) if error.kind() == io::ErrorKind::TimedOut => std::future::pending().await,
            Ok(0) | Err(_) => return None,
            Ok(read) => bytes += read,
        }
        longest_pause = longest_pause.max(last.elapsed());
        last = Instant::now();
        backend.note_heard(last);
    }
    Some(longest_pause)
}

/// Whether a look at a connection shows that the backend has closed it and left nothing unread.
fn is_end(looked: Result<usize, Errno>) -> bool {
    match looked {
        Ok(read) => read == 0,
        Err(Errno::AGAIN | Errno::INTR) => false,
        Err(_) => true,
    }
}

/// Whether the backend has neither closed the connection nor sent anything that was not read.
fn is_silent(socket: &BackendSocket) -> bool {
    matches!(peek(socket), Err(Errno::AGAIN | Errno::INTR))
}

/// How many bytes could be read, one at the most; 0 at the end.
fn peek(socket: &BackendSocket) -> Result<usize, Errno> {
    let mut byte = [0];
    let flags = RecvFlags::DONTWAIT | RecvFlags::PEEK;
    recv(socket, &mut byte[..], flags).map(|(read, _)| read)
}

#[cfg(test)]
#[cfg(not(feature = "shuttle"))]
mod tests {
    use super::*;
    use crate::upstream::fixtures::{first, upstream};
    use crate::upstream::socket::Eras;
    use crate::upstream::{Arrival, Upstream};
    use std::sync::Arc;
    use tokio::net::TcpListener;

    const SOON: Duration = Duration::from_secs(5);

    /// An upstream with one slot, and a request that has it on a connection to `TcpStream`.
    async fn work() -> (Arc<Upstream>, Work, TcpStream) {
        let upstream = upstream(&[1], 9);
        let Arrival::Seated(lease) = upstream.arrive(first()) else {
            panic!("no slot");
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = TcpStream::connect(listener.local_addr().unwrap());
        let socket = proxy.await.unwrap().into_std().unwrap();
        let (backend, _) = listener.accept().await.unwrap();
        let mut work = Work::new(lease);
        let socket = BackendSocket::new(socket.into(), Eras::default().now());
        assert!(work.connected(Some(socket), true, Instant::now()));
        (upstream, work, backend)
    }

    /// The backend closes, and the proxy's end of the connection shows it.
    async fn close(work: &Work, backend: TcpStream) {
        drop(backend);
        while !is_end(peek(work.socket.as_ref().unwrap())) {
            sleep(Duration::from_millis(1)).await;
        }
    }

    fn in_flight(upstream: &Upstream) -> (u32, u32) {
        let view = upstream.view();
        (view.backends[0].in_flight, view.backends[0].abandoned)
    }

    #[test]
    fn what_was_looked_at_is_still_to_be_read() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        ours.set_nonblocking(true).unwrap();
        let (mut theirs, _) = listener.accept().unwrap();
        let socket = BackendSocket::new(ours.into(), Eras::default().now());
        assert!(is_silent(&socket));
        io::Write::write_all(&mut theirs, b"x").unwrap();
        // On its way through the loopback.
        while is_silent(&socket) {}
        assert_eq!(peek(&socket), Ok(1));
    }

    async fn until_free(upstream: &Arc<Upstream>) {
        let freed = async {
            while in_flight(upstream) != (0, 0) {
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(SOON, freed)
            .await
            .expect("the slot is free in time");
    }

    #[tokio::test]
    async fn what_was_not_sent_is_no_work() {
        let (upstream, work, _backend) = work().await;
        drop(work);
        assert_eq!(in_flight(&upstream), (0, 0));
    }

    #[tokio::test]
    async fn a_backend_that_closed_has_let_go() {
        let (upstream, mut work, backend) = work().await;
        work.sending();
        close(&work, backend).await;
        drop(work);
        assert_eq!(in_flight(&upstream), (0, 0));
    }

    #[tokio::test]
    async fn a_connection_on_which_more_may_come_serves_no_other_request() {
        for is_spent in [true, false] {
            let (_upstream, mut work, mut backend) = work().await;
            if is_spent {
                work.spend_connection();
            }
            let socket = work.done().unwrap();
            socket.put_back(Instant::now());
            let mut byte = [0];
            let end = timeout(Duration::from_millis(50), backend.read(&mut byte)).await;
            assert_eq!(end.is_ok(), is_spent, "the backend sees its end");
        }
    }

    #[tokio::test]
    async fn nothing_is_sent_to_who_has_spoken_or_closed() {
        for is_closed in [true, false] {
            let (_upstream, mut work, mut backend) = work().await;
            let socket = work.socket.clone().unwrap();
            assert!(work.connected(Some(socket.clone()), false, Instant::now()));
            backend.write_all(b"HTTP/1.1 408").await.unwrap();
            let _backend = (!is_closed).then_some(backend);
            while is_silent(&socket) {
                sleep(Duration::from_millis(1)).await;
            }
            assert!(!work.connected(Some(socket), false, Instant::now()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_backend_that_took_nothing_is_believed_to_work_on_though_the_connection_is_gone() {
        let (upstream, mut work, backend) = work().await;
        work.sending();
        close(&work, backend).await;
        work.cut_off();
        drop(work);
        let begun = tokio::time::Instant::now();
        while in_flight(&upstream) != (0, 0) {
            sleep(Duration::from_millis(100)).await;
        }
        assert!(begun.elapsed() >= upstream.params().busy_limit);
    }

    #[tokio::test]
    async fn a_request_sent_whole_keeps_its_slot_until_the_answer() {
        let (upstream, mut work, mut backend) = work().await;
        work.sending();
        work.sent();
        drop(work);
        assert_eq!(in_flight(&upstream), (1, 1));
        let mut byte = [0];
        let heard = timeout(Duration::from_millis(100), backend.read(&mut byte)).await;
        assert!(heard.is_err(), "the backend hears nothing of it");
        assert_eq!(in_flight(&upstream), (1, 1));
        backend.write_all(b"HTTP/1.1 200 OK").await.unwrap();
        assert_eq!(
            timeout(SOON, backend.read(&mut byte))
                .await
                .unwrap()
                .unwrap(),
            0
        );
        assert_eq!(in_flight(&upstream), (1, 1), "it has not closed yet");
        drop(backend);
        until_free(&upstream).await;
    }

    #[tokio::test]
    async fn an_answer_that_was_read_in_the_last_moment_is_not_waited_for() {
        let (upstream, mut work, mut backend) = work().await;
        let socket = work.socket.clone().unwrap();
        let mut read = TcpStream::from_std(socket.into_std().unwrap()).unwrap();
        read.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        work.sending();
        work.sent();
        // Longer than a tick of the kernel's clock.
        sleep(Duration::from_millis(30)).await;
        backend.write_all(b"HTTP/1.1 204 No\r\n\r\n").await.unwrap();
        read.read_exact(&mut [0; 19]).await.unwrap();
        drop((read, work));
        let mut request = Vec::new();
        let end = timeout(SOON, backend.read_to_end(&mut request)).await;
        end.expect("it is told that nothing more will come")
            .unwrap();
        drop(backend);
        until_free(&upstream).await;
    }

    #[tokio::test]
    async fn an_answer_under_way_is_ended() {
        let (upstream, mut work, mut backend) = work().await;
        work.sending();
        work.answering();
        drop(work);
        let mut byte = [0];
        assert_eq!(
            timeout(SOON, backend.read(&mut byte))
                .await
                .unwrap()
                .unwrap(),
            0
        );
        assert_eq!(in_flight(&upstream), (1, 1));
        drop(backend);
        until_free(&upstream).await;
    }

    #[tokio::test]
    async fn a_backend_that_sends_without_end_is_reset() {
        let (upstream, mut work, mut backend) = work().await;
        work.sending();
        work.answering();
        drop(work);
        let mut written = 0;
        let endless = async {
            while backend.write_all(&[0; 65536]).await.is_ok() {
                written += 65536;
            }
        };
        timeout(SOON, endless)
            .await
            .expect("its write fails in time");
        assert!(written < 32 * DRAIN_BYTES_MAX, "{written}");
        let [(_, evidence)] = upstream.evidence(Instant::now())[..] else {
            panic!("one backend");
        };
        assert!(
            evidence.heard.is_some(),
            "that it sends on is a sign of life"
        );
        until_free(&upstream).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_backend_that_never_lets_go_is_given_up_after_the_limit() {
        let (upstream, mut work, _backend) = work().await;
        work.sending();
        work.sent();
        drop(work);
        let begun = tokio::time::Instant::now();
        while in_flight(&upstream) != (0, 0) {
            sleep(Duration::from_millis(100)).await;
        }
        let limit = upstream.params().busy_limit;
        assert!(begun.elapsed() >= limit && begun.elapsed() < limit * 2);
    }
}
