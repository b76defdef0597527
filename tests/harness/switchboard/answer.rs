//! Answers to requests, right ones and others.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http_body_util::BodyExt;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Bytes, Frame, Incoming},
    header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_MATCH, LOCATION},
};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{
    fault::{Fault, Route},
    state::{Content, Generation, State},
};

/// A body that is sent as it comes.
pub struct Sent(mpsc::UnboundedReceiver<io::Result<Bytes>>);

impl Body for Sent {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let piece = std::task::ready!(self.0.poll_recv(cx));
        Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
    }
}

type Answer = io::Result<Response<Sent>>;

/// Answers `request`; an error closes the connection without a byte.
pub async fn answer(state: Arc<State>, request: Request<Incoming>) -> Answer {
    let path = request.uri().path().to_owned();
    let segments: Vec<_> = path.trim_start_matches("/api/v1/").split('/').collect();
    let route = match (request.method(), &*segments) {
        (&Method::GET, ["jobs"]) => Route::Listing,
        (&Method::GET, ["jobs", id]) => Route::Job((*id).to_owned()),
        (&Method::PATCH, ["jobs", _]) => Route::Patch,
        (&Method::GET, ["jobs", _, "watch"]) => Route::JobWatch,
        (&Method::GET, ["hosts"]) => Route::Hosts,
        (&Method::GET, ["users", "me", "tokens"]) => Route::Tokens,
        (&Method::GET, ["users", "me"]) => Route::Account,
        (&Method::GET, ["hosts", _, "watch"]) => Route::HostWatch,
        _ => return status(404),
    };
    let id = segments.get(1).copied().unwrap_or_default();
    let fault = {
        let mut content = state.lock();
        if let Route::Job(_) = route {
            content.requests.push(Route::Detail);
        }
        content.requests.push(route.clone());
        let token = request.headers().get(AUTHORIZATION);
        let expected = format!("Bearer {}", content.token);
        if token.is_none_or(|token| token.as_bytes() != expected.as_bytes()) {
            return status(401);
        }
        let here = |at: &Route| match (&route, at) {
            (Route::Job(_), Route::Detail) => true,
            (route, at) => route == at,
        };
        let fault = content.faults.iter().find(|(at, _)| here(at));
        fault.map(|(_, fault)| fault.clone())
    };
    match &fault {
        Some(Fault::Status(code)) => return status(*code),
        Some(Fault::Redirect(to)) => {
            let mut answer = status(307)?;
            let to = to.parse().expect("a place");
            answer.headers_mut().insert(LOCATION, to);
            return Ok(answer);
        }
        Some(Fault::Slow(time)) => tokio::time::sleep(*time).await,
        Some(Fault::Hang) => state.behaves.notified().await,
        Some(Fault::Slam) => return Err(io::ErrorKind::ConnectionAborted.into()),
        Some(Fault::Huge | Fault::Endless) => return large(fault == Some(Fault::Huge)),
        Some(Fault::Body(body)) => return whole(body.to_string()),
        _ => {}
    }
    let half = fault == Some(Fault::Half);
    match route {
        Route::Listing => {
            let query = request.uri().query().unwrap_or_default();
            listing(&state.lock(), state.generation, query, fault.as_ref())
        }
        Route::Job(_) | Route::Detail => {
            let content = state.lock();
            if !content.may_read(id) {
                return status(403);
            }
            // Who may read all jobs gets 500 for one that is not there.
            let Some(job) = content.jobs.get(id) else {
                return status(500);
            };
            if half {
                return cut(&job.to_string());
            }
            let mut answer = whole(job.to_string())?;
            if let Some(revision) = job.get("revision") {
                let version = format!("\"{revision}\"").parse().expect("a version");
                answer.headers_mut().insert(ETAG, version);
            }
            Ok(answer)
        }
        Route::Account => {
            let mut groups = vec![json!({
                "group_id": "00000000-0000-0000-0000-000000000004", "name": "everyone",
                "source": "transitive", "source_ref": "",
            })];
            if state.lock().is_admin {
                groups.push(json!({
                    "group_id": "00000000-0000-0000-0000-000000000001", "name": "admins",
                    "source": "manual", "source_ref": "",
                }));
            }
            let account = json!({
                "user_id": "5e5e0000-0000-4000-8000-00000000000c", "name": "svc-port-proxy",
                "groups": groups, "emails": [], "locked": false,
            });
            whole(account.to_string())
        }
        Route::Tokens => {
            let expires = state.lock().token_expires.clone();
            whole(json!([{ "current": true, "expires_at": expires }]).to_string())
        }
        Route::Hosts => {
            let hosts: Vec<Value> = state.lock().hosts.values().cloned().collect();
            match half {
                true => cut(&json!(hosts).to_string()),
                false => whole(json!(hosts).to_string()),
            }
        }
        Route::JobWatch | Route::HostWatch => {
            let mut content = state.lock();
            match content.may_read(id) {
                true => watch(&mut content, id),
                false => status(403),
            }
        }
        Route::Patch => {
            let id = id.to_owned();
            let version = request.headers().get(IF_MATCH).cloned();
            let body = request
                .into_body()
                .collect()
                .await
                .map_err(io::Error::other)?;
            let patch: Value = serde_json::from_slice(&body.to_bytes())?;
            let mut content = state.lock();
            let expected = format!("\"{}\"", content.jobs[&id]["revision"]);
            if version.is_none_or(|version| version.as_bytes() != expected.as_bytes()) {
                return status(412);
            }
            content.change(&id, |job| job["annotations"] = patch["annotations"].clone());
            whole(content.jobs[&id].to_string())
        }
    }
}

fn listing(
    content: &Content,
    generation: Generation,
    query: &str,
    fault: Option<&Fault>,
) -> Answer {
    let parameter = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.rfind(|(key, _)| *key == name).map(|(_, value)| value)
    };
    let filtered = parameter("include") == Some("all") && parameter("state") == Some("active");
    if generation == Generation::Fourth && !filtered {
        return status(400);
    }
    let limit: usize = parameter("limit")
        .and_then(|limit| limit.parse().ok())
        .unwrap_or(50);
    let limit = limit.clamp(1, 200);
    // The id of the last row, in characters that a query needs escaped.
    let after = parameter("cursor").map(|cursor| {
        let id = cursor
            .strip_prefix("%7B%22")
            .and_then(|id| id.strip_suffix("%22%7D"));
        id.expect("a cursor as it was given")
    });
    let mark = content.cursors;
    let Some(after) = after.map_or(Some(None), |id| id.strip_prefix(mark).map(Some)) else {
        return status(400);
    };
    // One more than is asked for shows that there is more.
    let mut rows = match fault {
        Some(Fault::Nothing) => Vec::new(),
        _ => content.rows_after(after, limit + 1),
    };
    let more = rows.len() > limit;
    rows.truncate(limit);
    let last = rows
        .last()
        .map(|row| row["job_id"].as_str().expect("an id").to_owned());
    let mut next = last
        .filter(|_| more)
        .map(|id| format!("{{\"{mark}{id}\"}}"));
    match fault {
        Some(Fault::LostRow) => rows.insert(0, json!({ "job_id": 7 })),
        Some(Fault::SpoiltRow(id)) => {
            for row in rows.iter_mut().filter(|row| row["job_id"] == id.as_str()) {
                row["state"] = json!({ "type": "ready" });
            }
        }
        Some(Fault::Circle) => {
            let first = content.listed()[0]["job_id"].clone();
            next = Some(format!("{{{first}}}"));
        }
        Some(Fault::LargeAbove(most)) if limit > *most => return large(true),
        _ => {}
    }
    let body = json!({ "jobs": rows, "next_cursor": next }).to_string();
    match fault {
        Some(Fault::Half) => cut(&body),
        _ => whole(body),
    }
}

fn watch(content: &mut Content, id: &str) -> Answer {
    let (watcher, body) = mpsc::unbounded_channel();
    let opening = Bytes::from_static(b"event: change\ndata: {}\n\n");
    watcher.send(Ok(opening)).expect("just made");
    content.watches.push((id.to_owned(), watcher));
    let answer = Response::builder().header(CONTENT_TYPE, "text/event-stream");
    answer.body(Sent(body)).map_err(io::Error::other)
}

fn status(code: u16) -> Answer {
    let mut answer = pieces(0, [])?;
    *answer.status_mut() = StatusCode::from_u16(code).expect("a status");
    Ok(answer)
}

fn whole(body: String) -> Answer {
    pieces(body.len(), [Ok(body.into())])
}

/// Half of `body` and the end of the connection.
fn cut(body: &str) -> Answer {
    let half = Bytes::copy_from_slice(&body.as_bytes()[..body.len() / 2]);
    pieces(
        body.len(),
        [Ok(half), Err(io::ErrorKind::BrokenPipe.into())],
    )
}

/// More than anybody wants, a piece for every one that is taken.
fn large(announced: bool) -> Answer {
    const PIECE: Bytes = Bytes::from_static(&[b' '; 64 << 10]);
    const SIZE: usize = 1 << 30;
    let (sender, body) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        for _ in 0..SIZE / PIECE.len() {
            if sender.send(Ok(PIECE)).is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
    });
    let mut answer = Response::builder().header(CONTENT_TYPE, "application/json");
    if announced {
        answer = answer.header(CONTENT_LENGTH, SIZE);
    }
    answer.body(Sent(body)).map_err(io::Error::other)
}

fn pieces<const N: usize>(length: usize, pieces: [io::Result<Bytes>; N]) -> Answer {
    let (sender, body) = mpsc::unbounded_channel();
    for piece in pieces {
        sender.send(piece).expect("just made");
    }
    Response::builder()
        .header(CONTENT_TYPE, "application/json")
        .header(CONTENT_LENGTH, length)
        .body(Sent(body))
        .map_err(io::Error::other)
}
