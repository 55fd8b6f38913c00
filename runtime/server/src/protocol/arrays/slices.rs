//! Long arrays are converted in slices, by several threads at once.
//!
//! The threads are apart from those that compute models, whose time is billed.

use std::sync::LazyLock;

use rayon::{ThreadPool, ThreadPoolBuilder};

/// Bytes of JSON that are worth waking a thread for: a few hundred microseconds of work.
pub const SLICE: usize = 256 << 10;

static THREADS: LazyLock<Option<ThreadPool>> = LazyLock::new(|| {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    if threads == 1 {
        return None;
    }
    let pool = ThreadPoolBuilder::new().num_threads(threads);
    let pool = pool.thread_name(|n| format!("convert-{n}")).build();
    pool.inspect_err(|error| tracing::warn!(%error, "long arrays are converted by one thread each"))
        .ok()
});

/// How many slices to make of so many bytes of JSON; 1 where there is nothing to share out.
pub fn count(bytes: usize) -> usize {
    if bytes < 2 * SLICE {
        return 1;
    }
    let threads = THREADS.as_ref().map_or(1, ThreadPool::current_num_threads);
    threads.min(bytes / SLICE)
}

/// What `convert` makes of each slice, in order. The caller's thread takes the first.
pub fn map<S: Send, T: Send>(
    slices: impl IntoIterator<Item = S>,
    convert: impl Fn(S) -> T + Sync,
) -> Vec<T> {
    let mut slices = slices.into_iter();
    let Some(pool) = THREADS.as_ref() else {
        return slices.map(convert).collect();
    };
    let Some(first) = slices.next() else {
        return Vec::new();
    };
    let convert = &convert;
    let mut others: Vec<(Option<S>, Option<T>)> = slices.map(|slice| (Some(slice), None)).collect();
    let first = pool.in_place_scope(|scope| {
        for (slice, made) in &mut others {
            scope.spawn(move |_| *made = slice.take().map(convert));
        }
        convert(first)
    });
    let others = others.into_iter().filter_map(|(_, made)| made);
    std::iter::once(first).chain(others).collect()
}
