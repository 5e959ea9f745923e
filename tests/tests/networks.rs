//! The network of a session: from what session, agent and server say to what its agent reaches, and what people are told.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, reason = "tests")]

mod support;

use std::{
    io::{Read, Write},
    net::TcpListener,
};

use ambient_tests::TestDatabase;
use serde_json::{Value, json};
use support::{Server, script};

/// A server of the machine that answers with a line.
fn machine() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // Whoever says nothing keeps nobody else waiting; an answer to what was not read would be lost.
            std::thread::spawn(move || {
                let _ = stream.set_read_timeout(Some(std::time::Duration::from_secs(30)));
                let _ = stream.read(&mut [0; 4096]);
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\nConnection: close\r\n\r\nreached\n";
                let _ = stream.write_all(answer);
            });
        }
    });
    address
}

/// Asks the address directly, and through the proxy if there is one.
fn ask(address: &str) -> String {
    let (host, port) = address.split_once(':').unwrap();
    script(&format!(
        "ask() {{ exec 3<> /dev/tcp/$1/$2 || return 0; printf 'GET %s HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n' $3 >&3; cat <&3 || true; exec 3<&-; }}\n\
         set +e; (ask {host} {port} /) 2>&1 | sed 's/^/directly: /'; proxy=${{http_proxy#http://}}\n\
         [ -z \"$proxy\" ] || ask ${{proxy%:*}} ${{proxy#*:}} http://{address}/ | sed 's/^/proxy: /'; echo 'all asked'"
    ))
}

async fn printed(server: &Server, id: &str) -> String {
    server.printed(id, "all asked").await;
    server.events(id).await.iter().filter_map(support::runner::output).collect()
}

async fn refused(server: &Server, id: &str) -> Value {
    server.event(id, "the refusal is told", |event| event["type"] == "network.refused").await["data"].clone()
}

#[tokio::test]
async fn a_session_reaches_what_it_its_agent_or_its_server_says() {
    let database = TestDatabase::new().await;
    let mut server = Server::new(&database, "one");
    server.settings = vec![("AMBIENT_SESSION_NETWORK", "none".to_owned())];
    server.restart().await;
    server.project("networks").await;
    let address = machine();
    let agent = json!({
        "project_id": "networks", "name": "careful",
        "network": { "mode": "allow_list", "allow": [address, "*.example.com"] },
    });
    let agent = server.post("/agents", agent).await.expect(201);
    let prompt = ask(&address);

    let id = server.session(json!({ "project_id": "networks", "prompt": prompt })).await;
    let output = printed(&server, &id).await;
    assert!(output.contains("proxy: HTTP/1.1 403") && !output.contains(": reached"), "{output}");
    let (host, port) = address.split_once(':').unwrap();
    let port: u16 = port.parse().unwrap();
    let told = refused(&server, &id).await;
    let expected = json!({ "type": "network.refused", "host": host, "port": port, "reason": "no_network", "count": 1 });
    assert_eq!(told, expected);

    let body = json!({ "project_id": "networks", "prompt": prompt, "agent_id": agent["id"] });
    let id = server.session(body).await;
    let output = printed(&server, &id).await;
    assert!(output.contains("proxy: reached") && !output.contains("directly: reached"), "{output}");
    let operations = server.get(&format!("/operations?entity_id={id}&command=create")).await.expect(200);
    assert!(operations.to_string().contains("*.example.com"), "what the run was started with is recorded");
    let path = format!("/sessions/{id}");
    let change = json!({ "network": { "mode": "open" } });
    let patch = || server.request(reqwest::Method::PATCH, &path).json(&change);
    let while_active = server.send(patch()).await;
    assert_eq!(while_active.status, 409, "{}", while_active.json);
    assert!(while_active.json.to_string().contains("network cannot change while"), "{}", while_active.json);

    server.post(&format!("{path}/stop"), json!({})).await.expect(202);
    server.phase(&id, "Stopped").await;
    let changed = server.send(patch()).await.expect(200);
    assert_eq!(changed["network"], json!({ "mode": "open" }));
    server.post(&format!("{path}/start"), json!({})).await.expect(202);
    let directly =
        |event: &Value| support::runner::output(event).is_some_and(|text| text.contains("directly: reached"));
    server.event(&id, "it reaches what the machine reaches", directly).await;

    for (network, field) in [
        (json!({ "mode": "allow_list", "allow": ["ok.com", "Crates.io"] }), "network.allow[1]"),
        (json!({ "mode": "none", "allow": ["ok.com"] }), "network.allow"),
        (json!({ "mode": "allow_list" }), "network.allow"),
        (json!({ "mode": "some" }), "network.mode"),
    ] {
        for path in ["/sessions", "/agents"] {
            let body = json!({ "project_id": "networks", "name": "x", "network": network });
            let answer = server.post(path, body).await;
            assert_eq!(answer.status, 400, "{network}: {}", answer.json);
            assert!(answer.json.to_string().contains(field), "{field}: {}", answer.json);
        }
    }
    server.verified().await;
}

#[tokio::test]
async fn a_session_whose_network_cannot_be_restricted_fails_with_the_reason() {
    let database = TestDatabase::new().await;
    let mut server = Server::new(&database, "one");
    server.settings = vec![("AMBIENT_CONFINEMENT", "off".to_owned())];
    server.restart().await;
    server.project("networks").await;
    let body = json!({ "project_id": "networks", "prompt": "x", "network": { "mode": "none" } });
    let id = server.session(body).await;
    let failed = server.phase(&id, "Failed").await;
    let outcome = failed["outcome"].to_string();
    assert!(outcome.contains("network is restricted, which is not possible here"), "{failed:#}");
}
