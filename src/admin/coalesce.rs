//! Answers that are made once for all who ask for the same at a time, in bounded time and memory.
//!
//! An answer is made after it was asked for, so that it is never out of date. Requests that come while
//! one waits to be made share it. Two things are bounded. Time: after an answer, none is made for
//! [`REST`] times what it took, so that the control plane gets on with the rest of its work. Memory:
//! answers that clients have not taken yet have at most [`BYTES`] in all. Where they would have more,
//! the oldest is given up, and whoever still reads it loses the connection.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex, Weak},
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http_body_util::BodyExt;
use hyper::body::{Bytes, Frame, SizeHint};
use tokio::time::{Instant, sleep, sleep_until};

use super::{api::error::ApiError, metrics::Format};
use crate::mutex::lock;

/// Bytes of answers that clients have not taken yet, beyond the one that is being made.
const BYTES: usize = 32 << 20;

/// For how long an answer is there to be taken, however many others there are.
const KEPT_FOR: Duration = Duration::from_secs(2);

/// How often it is looked whether answers have been taken.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// After an answer none is made for so many times what it took.
const REST: u32 = 3;

/// The longest such rest.
const REST_AT_MOST: Duration = Duration::from_millis(250);

/// What a client is given at a time.
const PIECE: usize = 16 * 1024;

/// The answers of one listener.
#[derive(Debug, Default)]
pub(super) struct Coalescer {
    wanted: Mutex<HashMap<Key, Weak<Wanted>>>,
    /// From when on the next one may be made. Who holds it makes one.
    next: tokio::sync::Mutex<Option<Instant>>,
    /// Those that are not taken yet, oldest first.
    untaken: Mutex<Vec<Weak<Text>>>,
}

/// Which requests ask for the same.
#[derive(Debug, Clone, Copy)]
pub(super) enum SameBy {
    /// Those for one path: the answer does not depend on a query.
    Path,
    /// Those with one query, too.
    Query,
}

/// What somebody asks for, without what makes no difference to the answer.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    method: Method,
    path: String,
    query: Option<String>,
    format: Format,
}

impl Key {
    fn of(request: &Request, same_by: SameBy) -> Self {
        let query = match same_by {
            SameBy::Path => None,
            SameBy::Query => request.uri().query().map(str::to_owned),
        };
        Self {
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            query,
            format: Format::wanted_by(request.headers()),
        }
    }
}

/// An answer that some wait for. Who holds the lock sees to it.
type Wanted = tokio::sync::Mutex<Option<Answer>>;

#[derive(Debug, Clone)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: Arc<Text>,
    begun: Instant,
}

/// The text of an answer, until it is given up.
#[derive(Debug)]
struct Text {
    bytes: Mutex<Bytes>,
    length: usize,
    made: Instant,
}

/// Answers a request as another one that asks for the same, or as `next` does.
pub(super) async fn coalesce(
    State((answers, same_by)): State<(Arc<Coalescer>, SameBy)>,
    request: Request,
    next: Next,
) -> Response {
    let asked = Instant::now();
    let wanted = answers.wanted(Key::of(&request, same_by));
    let mut found = wanted.lock().await;
    if let Some(answer) = &*found
        && answer.begun >= asked
    {
        return answer.clone().into_response();
    }
    match answers.make(request, next).await {
        Ok(answer) => found.insert(answer).clone().into_response(),
        Err(error) => error.into_response(),
    }
}

impl Coalescer {
    /// Where those meet who ask for this.
    fn wanted(&self, key: Key) -> Arc<Wanted> {
        let mut all = lock(&self.wanted);
        all.retain(|_, wanted| wanted.strong_count() > 0);
        if let Some(wanted) = all.get(&key).and_then(Weak::upgrade) {
            return wanted;
        }
        let wanted = Arc::default();
        all.insert(key, Arc::downgrade(&wanted));
        wanted
    }

    async fn make(&self, request: Request, next: Next) -> Result<Answer, ApiError> {
        let mut from = self.next.lock().await;
        if let Some(from) = *from {
            sleep_until(from).await;
        }
        self.make_room().await;
        let begun = Instant::now();
        let (head, body) = next.run(request).await.into_parts();
        let bytes = body
            .collect()
            .await
            .map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
        let bytes = bytes.to_bytes();
        let made = Instant::now();
        *from = Some(made + (REST * (made - begun)).min(REST_AT_MOST));
        let text = Arc::new(Text {
            length: bytes.len(),
            bytes: Mutex::new(bytes),
            made,
        });
        lock(&self.untaken).push(Arc::downgrade(&text));
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            text,
            begun,
        })
    }

    /// Waits until few enough bytes are not taken, and gives up answers that had their time.
    async fn make_room(&self) {
        while !self.has_room(Instant::now()) {
            sleep(LOOK_EVERY).await;
        }
    }

    fn has_room(&self, now: Instant) -> bool {
        let mut untaken = lock(&self.untaken);
        untaken.retain(|text| text.strong_count() > 0);
        let texts: Vec<Arc<Text>> = untaken.iter().filter_map(Weak::upgrade).collect();
        let mut bytes: usize = texts.iter().map(|text| lock(&text.bytes).len()).sum();
        for text in &texts {
            if bytes <= BYTES || now < text.made + KEPT_FOR {
                break;
            }
            bytes -= std::mem::take(&mut *lock(&text.bytes)).len();
        }
        bytes <= BYTES
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let text = Pieces {
            text: self.text,
            given: 0,
        };
        let mut response = Response::new(Body::new(text));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}

/// An answer on its way to one client.
#[derive(Debug)]
struct Pieces {
    text: Arc<Text>,
    given: usize,
}

/// Why an answer ends before its end.
#[derive(Debug, thiserror::Error)]
#[error("the answer was not taken in time")]
struct GivenUp;

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = GivenUp;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, GivenUp>>> {
        if self.is_end_stream() {
            return Poll::Ready(None);
        }
        let range = self.given..(self.given + PIECE).min(self.text.length);
        let piece = {
            let bytes = lock(&self.text.bytes);
            (bytes.len() == self.text.length).then(|| bytes.slice(range.clone()))
        };
        self.given = range.end;
        Poll::Ready(Some(piece.map(Frame::data).ok_or(GivenUp)))
    }

    fn is_end_stream(&self) -> bool {
        self.given == self.text.length
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact((self.text.length - self.given) as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use axum::{Router, middleware, routing::get};
    use hyper_util::service::TowerToHyperService;

    use super::*;

    /// A router that counts how often it makes an answer of that many bytes.
    fn router(length: usize, same_by: SameBy) -> (Router, Arc<AtomicUsize>) {
        let made = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&made);
        let handler = async move || {
            counted.fetch_add(1, Relaxed);
            // Anything may happen meanwhile.
            sleep(Duration::from_millis(1)).await;
            "x".repeat(length)
        };
        let answers = Arc::new(Coalescer::default());
        let layer = middleware::from_fn_with_state((answers, same_by), coalesce);
        let router = Router::new().fallback_service(get(handler).layer(layer));
        (router, made)
    }

    async fn ask(router: &Router, target: &str) -> Response {
        let request = Request::builder().uri(target).body(Body::empty());
        let service = TowerToHyperService::new(router.clone());
        let answered = hyper::service::Service::call(&service, request.expect("a request")).await;
        answered.unwrap_or_else(|never| match never {})
    }

    async fn text(response: Response) -> Option<usize> {
        let collected = response.into_body().collect().await.ok()?;
        Some(collected.to_bytes().len())
    }

    #[tokio::test]
    async fn those_who_ask_for_the_same_at_a_time_share_an_answer() {
        let (router, made) = router(100_000, SameBy::Query);
        let asking = (0..20).map(|_| {
            let router = router.clone();
            tokio::spawn(async move { text(ask(&router, "/").await).await })
        });
        let asking: Vec<_> = asking.collect();
        for asked in asking {
            assert_eq!(asked.await.expect("no panic"), Some(100_000));
        }
        // The first is made at once; whoever came while it was made is told of later.
        let made = || made.load(Relaxed);
        assert!(made() <= 2, "{} made", made());
        let before = made();
        text(ask(&router, "/").await).await;
        assert_eq!(made(), before + 1, "what was is no answer");
        text(ask(&router, "/?other").await).await;
        assert_eq!(made(), before + 2);
    }

    #[tokio::test]
    async fn a_query_that_makes_no_difference_makes_no_answer_of_its_own() {
        let (router, made) = router(10, SameBy::Path);
        let asking = (0..20).map(|number| {
            let router = router.clone();
            tokio::spawn(async move { text(ask(&router, &format!("/?{number}")).await).await })
        });
        let asking: Vec<_> = asking.collect();
        for asked in asking {
            assert_eq!(asked.await.expect("no panic"), Some(10));
        }
        assert!(made.load(Relaxed) <= 2);
    }

    #[tokio::test]
    async fn answers_that_nobody_takes_are_given_up_for_new_ones() {
        let (router, _) = router(BYTES / 4, SameBy::Query);
        let mut untaken = Vec::new();
        for number in 0..10 {
            untaken.push(ask(&router, &format!("/?{number}")).await);
        }
        let last = untaken.pop().expect("there are some");
        assert_eq!(text(last).await, Some(BYTES / 4));
        let first = untaken.swap_remove(0);
        assert_eq!(text(first).await, None, "it ends like a whole one");
    }
}
