//! Live channels: every event after a cursor, once and in order, over both transports.

use std::time::Duration;

use ambient_wire::{
    live::{ClientFrame, PhaseEvent, SUBPROTOCOL, ServerFrame, UserMessageEvent},
    session::Condition,
};
use futures::{SinkExt, StreamExt};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Error, Message, client::IntoClientRequest},
};

use crate::support::{ADMIN, Answer, NOBODY, Server, VERA};

const LIMIT: Duration = Duration::from_secs(20);

pub struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    pub async fn open(server: &Server, token: Option<&str>, path: &str) -> Result<Self, u16> {
        let mut request = server.url(path).replace("http://", "ws://").into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", SUBPROTOCOL.parse().unwrap());
        if let Some(token) = token {
            request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        match connect_async(request).await {
            Ok((socket, response)) => {
                assert_eq!(response.headers()["sec-websocket-protocol"], SUBPROTOCOL);
                Ok(Self(socket))
            }
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    pub async fn send(&mut self, frame: &ClientFrame) {
        self.0.send(Message::text(serde_json::to_string(frame).unwrap())).await.unwrap();
    }

    async fn message(&mut self) -> Message {
        tokio::time::timeout(LIMIT, self.0.next()).await.expect("in time").expect("open").unwrap()
    }

    /// The next frame that is not a keep-alive.
    pub async fn next(&mut self) -> ServerFrame {
        loop {
            match self.frame().await {
                ServerFrame::Pong {} => {}
                frame => return frame,
            }
        }
    }

    async fn frame(&mut self) -> ServerFrame {
        loop {
            match self.message().await {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// The code with which the server closes.
    async fn close(&mut self) -> u16 {
        loop {
            match self.message().await {
                Message::Close(frame) => return frame.unwrap().code.into(),
                Message::Text(text) if text.contains("pong") => {}
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    pub async fn subscribe(&mut self, id: &str, session: &str, after_seq: Option<i64>) -> ServerFrame {
        let channel = format!("session:{session}");
        self.send(&ClientFrame::Subscribe { id: id.to_owned(), channel, after_seq }).await;
        self.next().await
    }

    /// Seqs of the next events of a subscription.
    async fn seqs(&mut self, count: usize) -> Vec<i64> {
        let mut seqs = Vec::new();
        while seqs.len() < count {
            match self.next().await {
                ServerFrame::Event { event, .. } => seqs.push(event.seq),
                other => panic!("{other:?}"),
            }
        }
        seqs
    }
}

/// Sends messages, each of which is one event.
async fn say(server: &Server, session: &str, count: usize) {
    for i in 0..count {
        let sent = server.post(&format!("/sessions/{session}/messages"), json!({"text": format!("message {i}")})).await;
        sent.expect(StatusCode::CREATED);
    }
}

async fn last_seq(server: &Server, session: &str) -> i64 {
    server.get(&format!("/sessions/{session}")).await.json()["last_seq"].as_i64().unwrap()
}

#[tokio::test]
async fn a_socket_gets_every_event_once_and_goes_on_where_another_stopped() {
    let server = Server::start().await;
    server.project("demo").await;
    let id = server.running_session("demo").await;
    let began = last_seq(&server, &id).await;
    let mut socket = Socket::open(&server, Some(VERA), &format!("/sessions/{id}/ws")).await.unwrap();
    assert_eq!(socket.subscribe("1", &id, Some(0)).await, ServerFrame::Subscribed { id: "1".to_owned(), seq: 0 });
    assert_eq!(socket.seqs(usize::try_from(began).unwrap()).await, (1..=began).collect::<Vec<_>>());
    say(&server, &id, 3).await;
    assert_eq!(socket.seqs(3).await, [began + 1, began + 2, began + 3]);
    drop(socket);
    say(&server, &id, 2).await;
    let mut socket = Socket::open(&server, Some(VERA), "/live").await.unwrap();
    socket.subscribe("2", &id, Some(began + 3)).await;
    assert_eq!(socket.seqs(2).await, [began + 4, began + 5]);
    server.delete(&format!("/sessions/{id}")).await.expect(StatusCode::NO_CONTENT);
    assert_eq!(socket.seqs(1).await, [began + 6]);
    assert_eq!(socket.next().await, ServerFrame::Ended { id: "2".to_owned(), reason: "deleted".to_owned() });
}

/// Whether a payload has what its type says, and nothing else.
fn is_of<T: serde::Serialize + serde::de::DeserializeOwned>(data: &Value) -> bool {
    serde_json::from_value::<T>(data.clone()).is_ok_and(|read| serde_json::to_value(read).unwrap() == *data)
}

#[tokio::test]
async fn what_events_say_is_of_the_types_in_the_document() {
    let server = Server::start().await;
    server.project("demo").await;
    let id = server.running_session("demo").await;
    say(&server, &id, 1).await;
    let page = server.get(&format!("/sessions/{id}/events?size=1000")).await.expect(StatusCode::OK);
    let mut seen = std::collections::BTreeSet::new();
    for event in page["items"].as_array().unwrap() {
        let (kind, data) = (event["type"].as_str().unwrap(), &event["data"]);
        seen.insert(kind);
        let fits = match kind {
            "user.message" => is_of::<UserMessageEvent>(data),
            "session.phase" => is_of::<PhaseEvent>(data),
            "session.condition" => is_of::<Condition>(data),
            _ => panic!("{event}"),
        };
        assert!(fits, "{event}");
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["session.condition", "session.phase", "user.message"]);
}

/// Compacts everything so far; the seq it covers.
async fn compact(server: &Server, session: &str) -> i64 {
    ambient_live::snapshot::compact(&server.database, session).await.unwrap()
}

fn contents(snapshot: &Value) -> Vec<&str> {
    assert_eq!(snapshot["type"], "MESSAGES_SNAPSHOT");
    snapshot["messages"].as_array().unwrap().iter().map(|message| message["content"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_new_reader_of_a_socket_gets_a_snapshot_and_the_tail_and_zero_means_everything() {
    let server = Server::start().await;
    server.project("demo").await;
    let id = server.running_session("demo").await;
    let mut socket = Socket::open(&server, Some(VERA), "/live").await.unwrap();
    let nothing_yet = socket.subscribe("early", &id, None).await;
    assert_eq!(nothing_yet, ServerFrame::Subscribed { id: "early".to_owned(), seq: 0 });
    say(&server, &id, 2).await;
    let covered = compact(&server, &id).await;
    assert_eq!(socket.seqs(usize::try_from(covered).unwrap()).await, (1..=covered).collect::<Vec<_>>());
    say(&server, &id, 2).await;
    assert_eq!(socket.seqs(2).await, [covered + 1, covered + 2], "who follows already does not notice");
    drop(socket);

    let mut socket = Socket::open(&server, Some(VERA), "/live").await.unwrap();
    match socket.subscribe("new", &id, None).await {
        ServerFrame::Snapshot { id, covers_seq, data } => {
            assert_eq!((id.as_str(), covers_seq, &data["covers_seq"]), ("new", covered, &json!(covered)));
            assert_eq!(contents(&data), ["message 0", "message 1"]);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(socket.next().await, ServerFrame::Subscribed { id: "new".to_owned(), seq: covered });
    assert_eq!(socket.seqs(2).await, [covered + 1, covered + 2]);
    let resumed = socket.subscribe("back", &id, Some(covered + 1)).await;
    assert_eq!(resumed, ServerFrame::Subscribed { id: "back".to_owned(), seq: covered + 1 });
    assert_eq!(socket.seqs(1).await, [covered + 2]);
    let whole = socket.subscribe("whole", &id, Some(0)).await;
    assert_eq!(whole, ServerFrame::Subscribed { id: "whole".to_owned(), seq: 0 });
    assert_eq!(socket.seqs(usize::try_from(covered + 2).unwrap()).await, (1..=covered + 2).collect::<Vec<_>>());
    say(&server, &id, 1).await;
    assert_eq!(socket.seqs(3).await, [covered + 3; 3], "all three follow");
}

#[tokio::test]
async fn messages_are_sent_over_a_socket_once() {
    let server = Server::start().await;
    server.project("demo").await;
    let id = server.running_session("demo").await;
    let mut socket = Socket::open(&server, Some(ADMIN), &format!("/sessions/{id}/ws")).await.unwrap();
    let send = ClientFrame::Send { id: "m1".to_owned(), session: id.clone(), text: "hello".to_owned() };
    socket.send(&send).await;
    let first = socket.next().await;
    assert!(
        matches!(&first, ServerFrame::Ack { id, message_id: Some(message) } if id == "m1" && message.len() == 27),
        "{first:?}"
    );
    socket.send(&send).await;
    assert_eq!(socket.next().await, first);
    let messages = server.get(&format!("/sessions/{id}/messages")).await.expect(StatusCode::OK);
    let texts: Vec<_> = messages["items"].as_array().unwrap().iter().map(|m| (&m["role"], &m["text"])).collect();
    assert_eq!(texts, [(&json!("user"), &json!("hello"))]);
}

#[tokio::test]
async fn messages_sent_without_waiting_are_accepted_in_their_order_and_a_refused_one_does_not_stop_the_next() {
    const AT_ONCE: usize = 8;
    let server = Server::start().await;
    server.project("demo").await;
    let (id, never_started) = (server.running_session("demo").await, server.session("demo").await);
    let mut socket = Socket::open(&server, Some(ADMIN), "/live").await.unwrap();
    let mut sent = Vec::new();
    for round in 0..5 {
        for n in 0..AT_ONCE {
            let (session, text) =
                if n == 2 { (&never_started, "too early".to_owned()) } else { (&id, format!("{round}.{n}")) };
            let send = ClientFrame::Send { id: format!("{round}.{n}"), session: session.clone(), text: text.clone() };
            socket.0.feed(Message::text(serde_json::to_string(&send).unwrap())).await.unwrap();
            if n != 2 {
                sent.push(text);
            }
        }
        socket.0.flush().await.unwrap();
        for n in 0..AT_ONCE {
            match socket.next().await {
                ServerFrame::Ack { id, .. } if n != 2 => assert_eq!(id, format!("{round}.{n}")),
                ServerFrame::Error { id, code, reason, .. } if n == 2 => {
                    assert_eq!((id, code.as_str()), (Some(format!("{round}.2")), "refused"));
                    assert_eq!(reason, "the Session is New; start it first", "a frame has no start=true");
                }
                other => panic!("{other:?} for {round}.{n}"),
            }
        }
    }
    let messages = server.get(&format!("/sessions/{id}/messages?size=100")).await.expect(StatusCode::OK);
    let texts: Vec<_> = messages["items"].as_array().unwrap().iter().map(|m| m["text"].as_str().unwrap()).collect();
    assert_eq!(texts, sent);
}

#[tokio::test]
async fn every_bad_frame_is_answered_and_the_connection_stays() {
    let server = Server::with(|config| config.max_subscriptions = 2).await;
    server.project("demo").await;
    let (id, other) = (server.running_session("demo").await, server.running_session("demo").await);
    let mut socket = Socket::open(&server, Some(VERA), &format!("/sessions/{id}/ws")).await.unwrap();
    let code = |frame: ServerFrame| match frame {
        ServerFrame::Error { code, .. } => code,
        other => panic!("{other:?}"),
    };
    for text in ["", "{}", "[]", r#"{"op":"nope"}"#, r#"{"op":"ping","bogus":1}"#, r#"{"op":"subscribe","id":1}"#] {
        socket.0.send(Message::text(text)).await.unwrap();
        assert_eq!(code(socket.next().await), "bad_frame", "{text}");
    }
    socket.0.send(Message::binary(vec![0, 255])).await.unwrap();
    assert_eq!(code(socket.next().await), "bad_frame");
    assert_eq!(code(socket.subscribe("1", &id, Some(-1)).await), "bad_frame");
    assert_eq!(code(socket.subscribe("1", &id, Some(1_000_000)).await), "bad_frame");
    assert_eq!(code(socket.subscribe("1", &other, None).await), "refused");
    socket.send(&ClientFrame::Send { id: "m".to_owned(), session: id.clone(), text: "x".to_owned() }).await;
    assert_eq!(code(socket.next().await), "refused");
    socket.send(&ClientFrame::Ping {}).await;
    assert_eq!(socket.frame().await, ServerFrame::Pong {});

    let mut live = Socket::open(&server, Some(NOBODY), "/live").await.unwrap();
    assert_eq!(code(live.subscribe("1", &id, None).await), "not_found");
    let mut live = Socket::open(&server, Some(VERA), "/live").await.unwrap();
    let last = last_seq(&server, &id).await;
    for n in ["1", "2"] {
        assert!(matches!(live.subscribe(n, &id, Some(last)).await, ServerFrame::Subscribed { .. }));
    }
    assert_eq!(code(live.subscribe("2", &id, Some(last)).await), "bad_frame");
    assert_eq!(code(live.subscribe("3", &id, Some(last)).await), "busy");
    live.send(&ClientFrame::Unsubscribe { id: "1".to_owned() }).await;
    assert!(matches!(live.subscribe("3", &id, Some(last)).await, ServerFrame::Subscribed { .. }));
}

#[tokio::test]
async fn a_ticket_opens_a_socket_without_a_header() {
    let server = Server::start().await;
    server.project("demo").await;
    let id = server.running_session("demo").await;
    let path = format!("/sessions/{id}/ws");
    assert_eq!(Socket::open(&server, None, &path).await.err(), Some(401));
    assert_eq!(Socket::open(&server, None, &format!("{path}?token={ADMIN}")).await.err(), Some(401));
    assert_eq!(Socket::open(&server, Some(NOBODY), &path).await.err(), Some(404));
    let request = server.request_as(VERA, Method::POST, "/live/tickets");
    let ticket = Answer::of(request.send().await.unwrap()).await.expect(StatusCode::CREATED);
    let token = ticket["token"].as_str().unwrap();
    let mut socket = Socket::open(&server, None, &format!("{path}?token={token}")).await.unwrap();
    assert!(matches!(socket.subscribe("1", &id, None).await, ServerFrame::Subscribed { .. }));
    let request = server.request_as(token, Method::GET, &format!("/sessions/{id}"));
    Answer::of(request.send().await.unwrap()).await.error(401);
}

#[tokio::test]
async fn a_server_that_ends_says_so() {
    let server = Server::start().await;
    server.project("demo").await;
    let id = server.running_session("demo").await;
    let mut socket = Socket::open(&server, Some(VERA), "/live").await.unwrap();
    let last = last_seq(&server, &id).await;
    socket.subscribe("1", &id, Some(last)).await;
    server.stop_live();
    assert_eq!(socket.close().await, 1001);
}

/// Reads server-sent events until there are `count` with an id.
async fn read_sse(response: &mut reqwest::Response, count: usize) -> Vec<(String, Value)> {
    let mut text = String::new();
    loop {
        let events: Vec<_> = text.split("\n\n").filter(|block| block.contains("id:")).map(parse).collect();
        if events.len() >= count && text.ends_with("\n\n") {
            return events;
        }
        let chunk = tokio::time::timeout(LIMIT, response.chunk()).await.expect("in time").unwrap().expect("open");
        text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
}

fn parse(block: &str) -> (String, Value) {
    let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    (field("id:"), serde_json::from_str(&field("data:")).unwrap())
}

#[tokio::test]
async fn server_sent_events_go_on_after_the_last_event_id() {
    let server = Server::start().await;
    server.project("demo").await;
    let id = server.running_session("demo").await;
    let path = format!("/sessions/{id}/events");
    let open = |last: Option<i64>, query: &str| {
        let mut request = server.request(Method::GET, &format!("{path}{query}")).header("accept", "text/event-stream");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        request.send()
    };
    let began = last_seq(&server, &id).await;
    let mut stream = open(None, "").await.unwrap();
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let first = read_sse(&mut stream, usize::try_from(began).unwrap()).await;
    assert_eq!(first.iter().map(|(id, _)| id.parse().unwrap()).collect::<Vec<i64>>(), (1..=began).collect::<Vec<_>>());
    assert_eq!(first[0].1["type"], "session.phase");
    drop(stream);
    say(&server, &id, 2).await;
    let mut stream = open(Some(began + 1), "?after_seq=0").await.unwrap();
    let rest = read_sse(&mut stream, 1).await;
    assert_eq!(
        (rest[0].0.as_str(), &rest[0].1["data"]["text"]),
        ((began + 2).to_string().as_str(), &json!("message 1"))
    );
    let ahead = Answer::of(open(Some(1_000), "").await.unwrap()).await;
    assert_eq!(ahead.fault(409), "after_seq");
    let bad = server.request(Method::GET, &path).header("accept", "text/event-stream").header("last-event-id", "x");
    assert_eq!(Answer::of(bad.send().await.unwrap()).await.fault(400), "Last-Event-ID");
}

#[tokio::test]
async fn the_stream_has_an_address_of_its_own_whatever_is_accepted() {
    let server = Server::start().await;
    server.project("demo").await;
    let id = server.running_session("demo").await;
    say(&server, &id, 1).await;
    let path = format!("/sessions/{id}/events/stream");
    let open = |query: &str| server.request(Method::GET, &format!("{path}{query}")).header("accept", "*/*");
    let mut stream = open("").header("last-event-id", 1).send().await.unwrap();
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    assert_eq!(read_sse(&mut stream, 1).await[0].0, "2");
    drop(stream);
    for (query, field) in [("?after_seq=-1", "after_seq"), ("?size=1", "size")] {
        assert_eq!(Answer::of(open(query).send().await.unwrap()).await.fault(400), field);
    }
}

#[tokio::test]
async fn server_sent_events_begin_with_a_snapshot_and_go_on_after_what_it_covers() {
    let server = Server::start().await;
    server.project("demo").await;
    let id = server.running_session("demo").await;
    say(&server, &id, 2).await;
    let covered = compact(&server, &id).await;
    say(&server, &id, 2).await;
    let open = |query: &str, last: Option<&str>| {
        let request = server.request(Method::GET, &format!("/sessions/{id}/events{query}"));
        let request = request.header("accept", "text/event-stream");
        last.map_or_else(
            || request.try_clone().unwrap(),
            |last| request.try_clone().unwrap().header("last-event-id", last),
        )
    };
    let seqs = |events: &[(String, Value)]| events.iter().map(|(id, _)| id.parse().unwrap()).collect::<Vec<i64>>();
    let events = read_sse(&mut open("", None).send().await.unwrap(), 3).await;
    assert_eq!(seqs(&events), [covered, covered + 1, covered + 2]);
    assert_eq!((contents(&events[0].1), &events[0].1["covers_seq"]), (vec!["message 0", "message 1"], &json!(covered)));
    assert_eq!(events[1].1["seq"], covered + 1);
    let back = read_sse(&mut open("", Some(&events[0].0)).send().await.unwrap(), 2).await;
    assert_eq!(seqs(&back), [covered + 1, covered + 2], "its id is where to go on");
    let whole = read_sse(&mut open("?after_seq=0", None).send().await.unwrap(), 4).await;
    assert_eq!((seqs(&whole)[..2].to_vec(), &whole[0].1["seq"]), (vec![1, 2], &json!(1)));
    let page = server.get(&format!("/sessions/{id}/events")).await.expect(StatusCode::OK);
    assert_eq!(
        (&page["items"][0]["seq"], &page["total"]),
        (&json!(1), &json!(covered + 2)),
        "a page is always of events"
    );
}

#[tokio::test]
async fn the_log_is_read_in_pages() {
    let server = Server::start().await;
    server.project("demo").await;
    let id = server.running_session("demo").await;
    say(&server, &id, 3).await;
    let last = last_seq(&server, &id).await;
    let page = server.get(&format!("/sessions/{id}/events?after_seq={}&size=2", last - 3)).await.expect(StatusCode::OK);
    assert_eq!(
        (&page["size"], &page["total"], &page["next"]),
        (&json!(2), &json!(last), &json!((last - 1).to_string()))
    );
    assert_eq!(page["items"][0]["type"], "user.message");
    let rest = server.get(&format!("/sessions/{id}/events?after_seq={}", last - 1)).await.expect(StatusCode::OK);
    assert_eq!((rest["size"].as_i64(), rest.get("next")), (Some(1), None));
}

#[tokio::test]
async fn messages_wait_for_a_session_that_starts_and_start_one_that_does_not() {
    let server = Server::start().await;
    server.project("demo").await;
    let id = server.session("demo").await;
    let path = format!("/sessions/{id}/messages");
    let refused = server.post(&path, json!({"text": "hello"})).await.error(409);
    assert!(refused["reason"].as_str().unwrap().contains("start=true"), "{refused}");
    let accepted = server.post(&path, json!({"text": "hello", "start": true})).await;
    assert!(accepted.header("location").contains("session-start"));
    let accepted = accepted.expect(StatusCode::ACCEPTED);
    assert_eq!(
        (&accepted["kind"], &accepted["session_id"], &accepted["seq"]),
        (&json!("Message"), &json!(id), &json!(2))
    );
    let later = server.post(&path, json!({"text": "more"})).await.expect(StatusCode::ACCEPTED);
    assert_eq!(later["seq"], 3);
    assert_eq!(server.post(&path, json!({"text": "a\0b"})).await.fault(400), "text");
    assert_eq!(server.post(&path, json!({})).await.fault(400), "text");
    let page = server.get(&format!("{path}?size=1")).await.expect(StatusCode::OK);
    let next = page["next"].as_str().unwrap();
    let rest = server.get(&format!("{path}?after_seq={next}")).await.expect(StatusCode::OK);
    assert_eq!((&page["total"], &rest["total"], &rest["size"]), (&json!(2), &json!(2), &json!(1)));
    assert_eq!((&page["items"][0]["text"], &rest["items"][0]["text"]), (&json!("hello"), &json!("more")));
}

#[tokio::test]
async fn a_connection_that_breaks_the_rules_is_closed_with_the_code_that_says_why() {
    let server = Server::start().await;
    let limit = ambient_api::ApiConfig::default().max_body_bytes;
    let mut big = Socket::open(&server, Some(ADMIN), "/live").await.unwrap();
    big.0.send(Message::text("x".repeat(2 * limit))).await.unwrap();
    assert_eq!(big.close().await, 1009);
    // A frame without mask, an unknown opcode, a text that is not UTF-8 (masked with zeros).
    for (bytes, code) in [
        (&[0x81, 0x01, b'x'][..], 1002),
        (&[0x83, 0x80, 0, 0, 0, 0][..], 1002),
        (&[0x81, 0x81, 0, 0, 0, 0, 0xff][..], 1007),
    ] {
        let mut socket = Socket::open(&server, Some(ADMIN), "/live").await.unwrap();
        socket.0.get_mut().write_all(bytes).await.unwrap();
        assert_eq!(socket.close().await, code, "{bytes:?}");
    }
    // A close is answered.
    let mut socket = Socket::open(&server, Some(ADMIN), "/live").await.unwrap();
    socket.0.send(Message::Close(None)).await.unwrap();
    loop {
        match tokio::time::timeout(LIMIT, socket.0.next()).await.expect("in time") {
            None | Some(Ok(Message::Close(_))) => break,
            Some(Ok(_)) => {}
            Some(Err(error)) => panic!("{error}"),
        }
    }
}
