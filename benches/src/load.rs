//! Many callers at once.

use std::time::{Duration, Instant};

use reqwest::{Client, Request};

use crate::Series;

/// `callers` ask for as long as `lasts`, each again as soon as it is answered. Returns the answers a
/// second of all, and how long each took.
pub async fn load(
    client: &Client,
    request: &Request,
    callers: usize,
    lasts: Duration,
) -> (f64, Series) {
    let began = Instant::now();
    let callers = (0..callers).map(|_| async {
        let mut times = vec![];
        while began.elapsed() < lasts {
            let asked = Instant::now();
            let request = request.try_clone().expect("the body is in memory");
            let answer = client.execute(request).await.expect("the server answers");
            assert!(answer.status().is_success(), "{}", answer.status());
            answer.bytes().await.expect("the answer is whole");
            times.push(asked.elapsed());
        }
        times
    });
    let times = futures::future::join_all(callers).await.concat();
    let rate = times.len() as f64 / began.elapsed().as_secs_f64();
    (rate, Series::new(times))
}
