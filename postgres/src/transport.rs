//! How the connection to PostgreSQL is secured.

use std::{fmt, net::IpAddr};

use sqlx::{PgConnection, Row as _, postgres::PgSslMode};

/// How a connection is secured, as the server sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transport {
    /// TLS version and cipher; none without TLS.
    tls: Option<String>,
    /// Where the other end is.
    way: Way,
    verified: Verified,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    UnixSocket,
    ThisMachine,
    Network,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verified {
    Nothing,
    Authority,
    AuthorityAndName,
}

impl Transport {
    /// Asks the server, in one query.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn of(connection: &mut PgConnection, mode: PgSslMode) -> Result<Self, sqlx::Error> {
        let sql = "select s.ssl, s.version, s.cipher, host(inet_client_addr()), host(inet_server_addr())
                   from (select 1) one left join pg_stat_ssl s on s.pid = pg_backend_pid()";
        let row = sqlx::query(sql).fetch_one(connection).await?;
        let text = |at: usize| row.get::<Option<String>, _>(at);
        let tls = row.get::<Option<bool>, _>(0).unwrap_or(false).then(|| {
            let [version, cipher] = [text(1), text(2)].map(Option::unwrap_or_default);
            format!("{version} ({cipher})")
        });
        let way = match (text(3), text(4)) {
            (Some(client), server) => {
                let loopback = client.parse().is_ok_and(|address: IpAddr| address.is_loopback());
                if loopback || Some(client) == server { Way::ThisMachine } else { Way::Network }
            }
            (None, _) => Way::UnixSocket,
        };
        let verified = match mode {
            PgSslMode::VerifyFull => Verified::AuthorityAndName,
            PgSslMode::VerifyCa => Verified::Authority,
            _ => Verified::Nothing,
        };
        Ok(Self { tls, way, verified })
    }

    /// Whether someone on the way could read it.
    #[must_use]
    pub fn is_exposed(&self) -> bool {
        self.tls.is_none() && self.way == Way::Network
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.tls, self.way) {
            (Some(tls), _) => {
                let verified = match self.verified {
                    Verified::Nothing => "server not verified",
                    Verified::Authority => "server's certificate verified, not its name",
                    Verified::AuthorityAndName => "server verified",
                };
                write!(f, "{tls}, {verified}")
            }
            (None, Way::UnixSocket) => f.write_str("Unix socket"),
            (None, Way::ThisMachine) => f.write_str("not encrypted, within this machine"),
            (None, Way::Network) => f.write_str("NOT ENCRYPTED; sslmode=verify-full makes it so"),
        }
    }
}
