//! Work on many containers, divided between threads.

use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError};
use std::thread::available_parallelism;

/// So many containers are worked on by one thread at a time.
const A_SHARE: usize = 100;

/// The work is to take no more of a host's processors than so many.
const MOST_THREADS: usize = 4;

/// What `read` gives for each of `all`, in their order, by several threads where there are many. A thread has a buffer for what it
/// reads.
pub fn in_shares<T: Send, R: Send>(
    all: &mut [T],
    read: impl Fn(&mut T, &mut Vec<u8>) -> R + Sync,
) -> Vec<R> {
    in_shares_meanwhile(all, || (), read).0
}

/// The same, and what `first` gives, which this thread calls before it helps the others.
pub fn in_shares_meanwhile<T: Send, R: Send, F>(
    all: &mut [T],
    first: impl FnOnce() -> F,
    read: impl Fn(&mut T, &mut Vec<u8>) -> R + Sync,
) -> (Vec<R>, F) {
    let threads = available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
    let threads = threads.min(all.len().div_ceil(A_SHARE));
    let shares = Mutex::new(all.chunks_mut(A_SHARE).enumerate());
    let read_shares = || {
        let mut buffer = Vec::new();
        let mut done: Vec<(usize, Vec<R>)> = Vec::new();
        loop {
            let next = shares.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((n, share)) = next else { return done };
            done.push((n, share.iter_mut().map(|one| read(one, &mut buffer)).collect()));
        }
    };
    let (mut done, first) = std::thread::scope(|scope| {
        // Where no thread can be had, those that are there read its share.
        let spawn = |_| std::thread::Builder::new().spawn_scoped(scope, read_shares).ok();
        let others: Vec<_> = (1..threads).filter_map(spawn).collect();
        let first = first();
        let mut done = read_shares();
        for other in others {
            done.extend(other.join().unwrap_or_else(|cause| resume_unwind(cause)));
        }
        (done, first)
    });
    done.sort_by_key(|(n, _)| *n);
    (done.into_iter().flat_map(|(_, read)| read).collect(), first)
}
