//! The clients that are served at the same time. When there are as many as there can be, whoever has said nothing for
//! longest goes for the next who comes, so that held connections keep nobody out. Imports nothing of this crate.

use std::collections::BTreeMap;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Clients that are served at the same time: each has a thread.
const SEATS_MAX: usize = 256;
/// Nobody goes for another before this: time to say what it came for.
const GRACE: Duration = Duration::from_millis(100);

/// All seats.
#[derive(Default)]
pub struct Seats {
    taken: Mutex<Taken>,
    freed: Condvar,
}

#[derive(Default)]
struct Taken {
    next: u64,
    clients: BTreeMap<u64, Client>,
}

struct Client {
    stream: Arc<UnixStream>,
    /// Since when it is its turn; `None` while its request is at work.
    idle_since: Option<Instant>,
}

/// A client's place, given back when dropped.
pub struct Seat {
    seats: Arc<Seats>,
    number: u64,
    stream: Arc<UnixStream>,
}

impl Seats {
    /// Gives a client a seat, once there is one.
    pub fn take(self: &Arc<Self>, stream: UnixStream) -> Seat {
        let stream = Arc::new(stream);
        let mut taken = self.lock();
        while taken.clients.len() >= SEATS_MAX {
            let wait = taken.make_room();
            let woken = self.freed.wait_timeout(taken, wait);
            taken = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        let number = taken.next;
        taken.next += 1;
        let client = Client { stream: stream.clone(), idle_since: Some(Instant::now()) };
        taken.clients.insert(number, client);
        Seat { seats: self.clone(), number, stream }
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    /// Ends the connection of whoever has been idle for longest, if it may go. Says how long to wait for a seat.
    fn make_room(&self) -> Duration {
        let idle = self.clients.values().filter_map(|client| Some((client.idle_since?, client)));
        let Some((since, client)) = idle.min_by_key(|(since, _)| *since) else { return GRACE };
        let left = GRACE.saturating_sub(since.elapsed());
        if left.is_zero() {
            // Its thread reads the end, and gives the seat back.
            let _ = client.stream.shutdown(Shutdown::Both);
            return GRACE;
        }
        left
    }
}

impl Seat {
    /// The client.
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Works on the client's request, and keeps its seat meanwhile, however long it takes.
    pub fn at_work<T>(&self, work: impl FnOnce() -> T) -> T {
        self.set_idle_since(None);
        let done = work();
        self.set_idle_since(Some(Instant::now()));
        done
    }

    fn set_idle_since(&self, since: Option<Instant>) {
        if let Some(client) = self.seats.lock().clients.get_mut(&self.number) {
            client.idle_since = since;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.lock().clients.remove(&self.number);
        self.seats.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::thread;

    /// As the thread that serves a client: it gives the seat back when the connection ends.
    fn serve(seat: Seat) -> thread::JoinHandle<()> {
        thread::spawn(move || {
            let _ = seat.stream().read(&mut [0]);
        })
    }

    #[test]
    fn held_connections_make_room_and_work_is_not_cut_off() {
        let seats = Arc::new(Seats::default());
        let pair = || UnixStream::pair().expect("a pair of sockets");
        let (worker, theirs) = pair();
        let working = seats.take(theirs);
        let (mut held, mut threads) = (Vec::new(), Vec::new());
        working.at_work(|| {
            for _ in 0..SEATS_MAX + 10 {
                let (ours, theirs) = pair();
                threads.push(serve(seats.take(theirs)));
                held.push(ours);
            }
        });
        let is_open = |mut stream: &UnixStream| {
            stream.set_nonblocking(true).expect("a socket");
            stream.read(&mut [0]).is_err()
        };
        assert!(is_open(&worker));
        let open: Vec<bool> = held.iter().map(is_open).collect();
        // Those who came first went first, and no more of them than had to.
        assert_eq!(open.iter().filter(|open| !**open).count(), 11);
        assert!(open[11..].iter().all(|open| *open), "{open:?}");
        drop(held);
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        assert_eq!(seats.lock().clients.len(), 1);
    }
}
