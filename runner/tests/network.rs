//! What a session with a restricted network reaches: what its proxy lets through, its model, and nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{TcpListener, UdpSocket},
    os::{linux::net::SocketAddrExt, unix::net::SocketAddr},
    time::Duration,
};

use ambient_runner_protocol::{Confinement, ModelDialect, ModelEndpoint, Network, NetworkMode};
use ambient_scripted_model::ScriptedModel;
use harness::{Reader, Runner, Session, answers, eventually, is_of_type, of_type, run};
use serde_json::{Value, json};

const NONE: Network = Network { mode: NetworkMode::None, allow: Vec::new() };

fn allow(entries: &[String]) -> Network {
    Network { mode: NetworkMode::AllowList, allow: entries.to_vec() }
}

fn session(network: Network) -> Session {
    let mut session = Session::new(true);
    session.spec.network = network;
    session
}

/// A server of the machine that answers every request with a line.
fn server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    answer_all(listener);
    address
}

fn answer_all(listener: TcpListener) {
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut bytes = [0; 4096];
                let _ = stream.read(&mut bytes);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\nConnection: close\r\n\r\nreached\n");
            });
        }
    });
}

/// `through METHOD TARGET` sends a request to the proxy and prints the answer; `through CONNECT` goes on with a request.
const THROUGH: &str = r#"
through() {
    proxy=${http_proxy#http://}
    exec 3<> "/dev/tcp/${proxy%:*}/${proxy#*:}"
    printf '%s %s HTTP/1.1\r\nHost: x\r\n\r\n' "$1" "$2" >&3
    [ "$1" = GET ] || printf 'GET / HTTP/1.1\r\n\r\n' >&3
    cat <&3 || true
    exec 3<&-
}
"#;

async fn refused(runner: &Runner) -> Vec<Value> {
    let mut reader = runner.client.events(9, "", 0).await;
    runner.client.deliver("last", 99, "```\ntrue\n```").await.expect(200);
    let last = |record: &ambient_runner_protocol::Record| {
        record.event["message_id"] == "last" && is_of_type(record, "turn.ended")
    };
    let records = reader.until(last).await;
    of_type(&records, "network.refused").into_iter().cloned().collect()
}

/// Everything a program can try to get out without the proxy. Prints `yes` for what worked.
const ESCAPES: &str = r#"
use Socket;
my ($tcp, $udp, $name, $own) = @ARGV;
sub says { my ($what, $worked) = @_; print(($worked ? "yes " : "no ") . "$what\n"); }
sub tcp { my ($host, $port) = @_; socket(my $s, PF_INET, SOCK_STREAM, 0); connect($s, sockaddr_in($port, inet_aton($host))); }
for my $host ("127.0.0.1", "0.0.0.0", "127.0.0.2", $own) { says("tcp $host", tcp($host, $tcp)); }
says("tcp 1.1.1.1", tcp("1.1.1.1", 53));
socket(my $u, PF_INET, SOCK_DGRAM, 0); setsockopt($u, SOL_SOCKET, SO_BROADCAST, 1);
send($u, "out", 0, sockaddr_in($udp, inet_aton($_))) for ("127.0.0.1", $own, "255.255.255.255", "224.0.0.1");
says("udp 1.1.1.1", send($u, "out", 0, sockaddr_in(53, inet_aton("1.1.1.1"))));
says("raw", socket(my $r, PF_INET, SOCK_RAW, 1));
says("ping", socket(my $p, PF_INET, SOCK_DGRAM, 1));
says("packet", socket(my $k, 17, SOCK_RAW, 0));
says("vsock", socket(my $v, 40, SOCK_STREAM, 0));
socket(my $a, PF_UNIX, SOCK_STREAM, 0); says("abstract", connect($a, pack("S a*", AF_UNIX, "\0$name")));
says("dns", defined(gethostbyname("example.com")));
# Switching an interface on, adding an address: it takes rights in the network, which nobody in it has.
socket(my $n, 16, SOCK_RAW, 0); send($n, pack("LSSLL CxSlLL", 32, 16, 5, 1, 0, 0, 0, 1, 0, 1), 0); recv($n, my $answer, 512, 0);
says("netlink", unpack("x16 l", $answer) == 0);
says("unshare", system("unshare", "--net", "true") == 0);
open(my $net, "<", "/proc/net/dev"); my @lines = <$net>; says("interfaces", @lines != 3);
says("sysctl", open(my $f, ">", "/proc/sys/net/ipv4/ping_group_range"));
"#;

#[tokio::test]
async fn nothing_but_the_proxy_leads_out() {
    let (tcp, udp) = (TcpListener::bind("0.0.0.0:0").unwrap(), UdpSocket::bind("0.0.0.0:0").unwrap());
    tcp.set_nonblocking(true).unwrap();
    udp.set_nonblocking(true).unwrap();
    let name = format!("ambient-test-{}", std::process::id());
    let abstract_address = SocketAddr::from_abstract_name(&name).unwrap();
    let unix = std::os::unix::net::UnixListener::bind_addr(&abstract_address).unwrap();
    unix.set_nonblocking(true).unwrap();
    // The address by which others reach this machine, if it has one.
    let own = UdpSocket::bind("0.0.0.0:0").unwrap();
    let own = own
        .connect("192.0.2.1:9")
        .and_then(|()| own.local_addr())
        .map_or("127.0.0.3".to_owned(), |a| a.ip().to_string());
    let (tcp_port, udp_port) = (tcp.local_addr().unwrap().port(), udp.local_addr().unwrap().port());
    let script = format!("cat > escape.pl <<'E'\n{ESCAPES}\nE\nperl escape.pl {tcp_port} {udp_port} {name} {own}");
    for network in [NONE, allow(&["example.com".to_owned(), format!("127.0.0.1:{tcp_port}")])] {
        let session = session(network);
        let runner = session.start().await;
        let output = run(&runner, "m", &script).await;
        assert_eq!(answers(&output, "no ").len(), 16, "{output}");
        assert!(answers(&output, "yes ").is_empty(), "{output}");
        assert!(tcp.accept().is_err() && unix.accept().is_err(), "nobody has connected");
        assert!(udp.recv(&mut [0; 8]).is_err(), "nothing has come");
        // What outlives its turn is in the same network, and so is the next turn.
        let late = format!(
            "cd ..; (setsid sh -c 'sleep 0.3; perl workspace/escape.pl {tcp_port} {udp_port} {name} {own} > \"$HOME/late\"; echo done >> \"$HOME/late\"' &)"
        );
        run(&runner, "n", &late).await;
        let written = session.paths.home().join("late");
        eventually("it has tried", || std::fs::read_to_string(&written).is_ok_and(|text| text.contains("done"))).await;
        let text = std::fs::read_to_string(&written).unwrap();
        assert!(answers(&text, "no ").len() == 16 && answers(&text, "yes ").is_empty(), "{text}");
    }
    // The same program in an open network, so that the above proves something.
    let session = session(Network::default());
    let runner = session.start().await;
    let output = run(&runner, "m", &script).await;
    assert!(output.contains("yes tcp 127.0.0.1") && tcp.accept().is_ok() && udp.recv(&mut [0; 8]).is_ok(), "{output}");
}

#[tokio::test]
async fn what_the_list_names_is_reached_through_the_proxy_and_the_rest_is_refused_and_told() {
    let (allowed, other) = (server(), server());
    let localhost = allowed.replace("127.0.0.1", "localhost");
    let session = session(allow(&[allowed.clone(), other.replace("127.0.0.1", "localhost"), "example.com".to_owned()]));
    let runner = session.start().await;
    let script = format!(
        "{THROUGH}\nthrough GET http://{allowed}/; through CONNECT {allowed}\nthrough CONNECT {other}; through CONNECT {other}; \
         through GET http://{localhost}/; through CONNECT evil.example.com:443\nenv | grep -i proxy"
    );
    let output = run(&runner, "m", &script).await;
    assert_eq!(output.matches("reached\n").count(), 2, "{output}");
    assert_eq!(output.matches("403 Forbidden").count(), 4, "{output}");
    assert!(output.contains("https_proxy=http://127.0.0.1:") && output.contains("NODE_USE_ENV_PROXY=1"), "{output}");
    // A name that leads to an address which the list does not name.
    let localhost = other.replace("127.0.0.1", "localhost");
    let output = run(&runner, "n", &format!("{THROUGH}\nthrough CONNECT {localhost}")).await;
    assert!(output.contains("not public"), "{output}");
    let told: Vec<_> = refused(&runner).await;
    let told: Vec<_> = told.iter().map(|e| (e["host"].as_str().unwrap(), e["reason"].as_str().unwrap())).collect();
    let expected = [
        ("127.0.0.1", "not_allowed"),
        ("localhost", "not_allowed"),
        ("evil.example.com", "not_allowed"),
        ("localhost", "not_public"),
    ];
    assert_eq!(told, expected);
}

#[tokio::test]
async fn a_flood_of_refused_hosts_leaves_a_few_records_and_a_runner_that_works() {
    let session = session(NONE);
    let runner = session.start().await;
    let flood = "proxy=${http_proxy#http://}\nfor i in $(seq 1 2000); do exec 3<> /dev/tcp/${proxy%:*}/${proxy#*:}; \
                 printf 'CONNECT h%s.test:443 HTTP/1.1\\r\\n\\r\\n' $i >&3; read -r line <&3; exec 3<&-; done; echo \"$line\"";
    let output = run(&runner, "m", flood).await;
    assert!(output.contains("403"), "{output}");
    assert_eq!(refused(&runner).await.len(), 32);
    // The rest is told as a number, at the end at the latest.
    let mut reader = runner.client.events(10, "", 0).await;
    runner.client.send("POST", "/shutdown", json!({})).await.expect(202);
    let records = reader.until(|record| is_of_type(record, "runner.exited")).await;
    let others: Vec<_> = of_type(&records, "network.refused").into_iter().filter(|e| e["host"] == "").collect();
    assert_eq!((others.len(), &others[0]["count"]), (1, &json!(2000 - 32)), "{others:?}");
}

#[tokio::test]
async fn an_agents_model_is_reached_in_every_mode() {
    let model = ScriptedModel::start(None).await.unwrap();
    for network in [Network::default(), NONE, allow(&["example.com".to_owned()])] {
        let mut session = session(network);
        let base_urls = BTreeMap::from([(ModelDialect::OpenaiChat, format!("{}/v1", model.url()))]);
        session.spec.model = Some(ModelEndpoint { base_urls, ..ModelEndpoint::default() });
        let runner = session.start().await;
        let ask = "address=${AMBIENT_MODEL_URL#http://}; exec 3<> /dev/tcp/${address%:*}/${address#*:}\n\
            body='{\"model\":\"scripted\",\"messages\":[{\"role\":\"user\",\"content\":\"SCENARIO=hello\"}]}'\n\
            printf 'POST /v1/chat/completions HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\nAuthorization: Bearer %s\\r\\nContent-Length: %s\\r\\n\\r\\n%s' \
            \"$AMBIENT_MODEL_TOKEN\" ${#body} \"$body\" >&3; cat <&3";
        let output = run(&runner, "m", ask).await;
        assert!(output.starts_with("HTTP/1.1 200"), "{output}");
    }
}

#[tokio::test]
async fn stopping_a_turn_closes_its_connections() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let session = session(allow(&[address.to_string()]));
    let runner = session.start().await;
    let mut reader: Reader = runner.client.events(1, "", 0).await;
    // It ignores the wish, so that only the runner can close the connection.
    let script = format!("trap '' TERM\n{THROUGH}\nthrough CONNECT {address}; sleep 600");
    runner.client.deliver("m", 1, &format!("```bash\n{script}\n```")).await.expect(200);
    let (mut stream, _) = tokio::task::spawn_blocking(move || listener.accept().unwrap()).await.unwrap();
    runner.client.send("POST", "/interrupt", json!({})).await.expect(204);
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let ended = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        let read = stream.read_to_end(&mut bytes);
        read.is_ok() || read.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset)
    });
    assert!(ended.await.unwrap(), "the host sees the end within a second");
    reader.until_turn_ended().await;
}

/// Programs that people use, as far as they are here, at an address that no rule of theirs keeps from the proxy.
#[tokio::test]
async fn curl_git_and_node_find_their_way_through_the_proxy() {
    let listener = TcpListener::bind("127.0.0.2:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    answer_all(listener);
    let session = session(allow(std::slice::from_ref(&address)));
    let runner = session.start().await;
    let script = format!(
        "has() {{ command -v $1 >/dev/null || {{ echo \"no $1\"; false; }}; }}\n\
         has curl && curl -sS http://{address}/ && curl -sSp http://{address}/ && curl -sS -o /dev/null -w '%{{http_code}}\\n' http://127.0.0.3:1/\n\
         has git && git ls-remote http://{address}/x 2>&1 | head -1; git ls-remote http://evil.test/x 2>&1 | head -1\n\
         has node && node -e 'fetch(\"http://{address}/\").then(async r => console.log(\"node\", await r.text()), e => console.log(\"node\", e.message))'"
    );
    let output = run(&runner, "m", &script).await;
    let told = refused(&runner).await;
    let hosts: Vec<_> = told.iter().map(|event| event["host"].as_str().unwrap()).collect();
    if !output.contains("no curl") {
        assert!(output.starts_with("reached\nreached\n403\n"), "{output}");
        assert!(hosts.contains(&"127.0.0.3"), "{hosts:?}");
    }
    if !output.contains("no git") {
        assert!(output.contains("not valid: is this a git repository?"), "the server was asked: {output}");
        assert!(hosts.contains(&"evil.test"), "{hosts:?}");
    }
    // Older ones heed no variable, and so have no network.
    assert!(
        output.contains("no node") || output.contains("node reached") || output.contains("node fetch failed"),
        "{output}"
    );
}

#[tokio::test]
async fn the_platforms_own_git_is_not_restricted_and_the_agents_is() {
    let session = session(NONE);
    let url = session.origin("origin");
    let runner = session.start().await;
    runner.client.send("PUT", "/repos/r", json!({ "url": url })).await.expect(200);
    let output = run(&runner, "m", "cat README.md; try git ls-remote http://127.0.0.1:1/x").await;
    assert!(output.contains("hello") && output.contains("no git ls-remote"), "{output}");
    let told = refused(&runner).await;
    // Loopback is reached without the proxy, and is the agent's own.
    assert!(told.is_empty(), "{told:?}");
}

#[tokio::test]
async fn where_a_network_cannot_be_restricted_the_session_does_not_start() {
    for confinement in [Confinement::BestEffort, Confinement::Off] {
        let mut session = session(NONE);
        session.without_namespaces = confinement == Confinement::BestEffort;
        session.spec.confinement = confinement;
        let mut refused = session.spawn();
        assert_eq!(refused.exit_code().await, Some(2), "{}", session.log());
        let reason = session.exited().unwrap().reason;
        assert!(reason.starts_with("the session's network is restricted, which is not possible here"), "{reason}");
    }
}
