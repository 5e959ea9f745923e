//! The network: the machine's, its sockets, and whatever could be told to somebody outside.

use std::{
    net::{TcpListener, UdpSocket},
    os::{linux::net::SocketAddrExt, unix::net},
};

use serde_json::json;

use crate::world::World;

#[tokio::test]
async fn an_agent_without_a_network_reaches_nothing_and_nobody() {
    let world = World::new().await;
    let tcp = TcpListener::bind("0.0.0.0:0").unwrap();
    let udp = UdpSocket::bind("0.0.0.0:0").unwrap();
    let name = format!("hostile-{}", std::process::id());
    let unix = net::UnixListener::bind_addr(&net::SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    for listener in [tcp.set_nonblocking(true), udp.set_nonblocking(true), unix.set_nonblocking(true)] {
        listener.unwrap();
    }
    let (tcp_port, udp_port) = (tcp.local_addr().unwrap().port(), udp.local_addr().unwrap().port());
    let server = world.server.address().rsplit(':').next().unwrap().to_owned();
    for network in [json!({"mode": "none"}), json!({"mode": "allow_list", "allow": ["example.com"]})] {
        let agent = world.attacker_in(network).await;
        let printed = agent
            .gets_nothing(&format!(
                "for host in 127.0.0.1 0.0.0.0 $(hostname -i 2>/dev/null); do\n\
                 for port in {tcp_port} {server} 22 53; do (exec 3<> /dev/tcp/$host/$port) 2>/dev/null && echo GOT $host $port; done\n\
                 (echo out > /dev/udp/$host/{udp_port}) 2>/dev/null; done\n\
                 (exec 3<> /dev/tcp/1.1.1.1/53) 2>/dev/null && echo GOT out\n\
                 getent hosts example.com && echo GOT a name\n\
                 perl -MSocket -e 'socket(my $s, PF_UNIX, SOCK_STREAM, 0); connect($s, pack(\"S a*\", AF_UNIX, \"\\0{name}\")) and print \"GOT abstract\\n\"'\n\
                 perl -MSocket -e 'socket(my $s, PF_INET, SOCK_RAW, 1) and print \"GOT raw\\n\"'\n\
                 grep -v 'lo:' /proc/net/dev | grep : && echo GOT an interface\n\
                 unshare --user --net true 2>/dev/null && echo GOT a namespace\n\
                 nsenter --net=/proc/1/ns/net true 2>/dev/null && echo GOT another network\n\
                 grep -q @{name} /proc/net/unix && echo GOT a look at the machine\n\
                 proxy=${{http_proxy#http://}}\n\
                 for target in 127.0.0.1:{tcp_port} localhost:{server} 169.254.169.254:80 '[::ffff:127.0.0.1]:{tcp_port}' 2130706433:{tcp_port} \
                   example.com.evil.test:443 example.com:22; do\n\
                 exec 3<> /dev/tcp/${{proxy%:*}}/${{proxy#*:}}; printf 'CONNECT %s HTTP/1.1\\r\\n\\r\\n' $target >&3\n\
                 read -r line <&3; case $line in *' 403 '*|*' 400 '*) echo refused;; *) echo GOT $target: $line;; esac; exec 3<&-; done"
            ))
            .await;
        assert_eq!(printed.matches("refused").count(), 7, "{printed}");
        assert!(tcp.accept().is_err() && unix.accept().is_err() && udp.recv(&mut [0; 8]).is_err());
    }
}
