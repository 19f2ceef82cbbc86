//! Where the servers are.

use std::time::Duration;

use portcullis_core::Secret;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, RedisError, TlsCertificates, TlsMode,
    cluster::{ClusterClient, ClusterClientBuilder},
};

use crate::error::OpenError;

/// The shortest time a connection may take to be made: a handshake takes several round trips.
const CONNECTING: Duration = Duration::from_secs(1);

/// Where the servers are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedSettings {
    /// `redis://[user[:password]@]host[:port][/database]`, or `rediss://` for TLS. It may hold a password.
    pub url: Secret,
    /// How the server that is written to is found.
    pub topology: Topology,
    /// PEM of the authorities a TLS server's certificate must come from; those of the system without it.
    pub trust: Option<Vec<u8>>,
    /// How long a question waits.
    pub timeout: Duration,
    /// How many replicas must have what was counted before it is answered. No more than the server has, or nothing is.
    pub replicas: u32,
}

/// How the server that is written to is found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Topology {
    /// It is the one at the address.
    #[default]
    Alone,
    /// Sentinels say which one it is. The address is that of one of them; its user, password and database are for the
    /// server.
    Sentinel {
        /// What they call the server and its replicas.
        service: String,
        /// The others, `host:port` each.
        nodes: Vec<String>,
        /// The password for the sentinels themselves.
        password: Option<Secret>,
    },
    /// It depends on the key. The address is that of one of the cluster's servers.
    Cluster {
        /// Others to begin with, `host:port` each.
        nodes: Vec<String>,
    },
}

/// What makes connections.
pub(super) enum Way {
    Alone(Box<Client>),
    Sentinel(Box<tokio::sync::Mutex<SentinelClient>>),
    Cluster(Box<ClusterClient>),
}

impl SharedSettings {
    /// One server at an address, which is waited for as long as where nothing is written, and no replicas.
    pub const fn at(url: Secret) -> Self {
        Self { url, topology: Topology::Alone, trust: None, timeout: Self::TIMEOUT, replicas: 0 }
    }

    /// How long a question waits where nothing is written.
    pub const TIMEOUT: Duration = Duration::from_millis(50);

    /// Whether the addresses and the trust can be used. No server is asked.
    ///
    /// # Errors
    /// They cannot.
    pub fn check(&self) -> Result<(), OpenError> {
        self.way().map(drop)
    }

    /// How long making a connection may take.
    pub(super) fn connecting(&self) -> Duration {
        self.timeout.max(CONNECTING)
    }

    pub(super) fn way(&self) -> Result<Way, OpenError> {
        let url = std::str::from_utf8(self.url.expose()).map_err(|_not_text| OpenError::BadAddress)?.trim();
        let info = url.into_connection_info().map_err(unusable)?;
        match &self.topology {
            Topology::Alone => match self.certificates() {
                None => Client::open(info),
                Some(certificates) => Client::build_with_tls(info, certificates),
            }
            .map(|client| Way::Alone(Box::new(client)))
            .map_err(unusable),
            Topology::Sentinel { service, nodes, password } => {
                let client = self.sentinel(&info, service, nodes, password.as_ref())?;
                Ok(Way::Sentinel(Box::new(tokio::sync::Mutex::new(client))))
            }
            Topology::Cluster { nodes } => {
                self.cluster(&info, nodes).map(|client| Way::Cluster(Box::new(client)))
            }
        }
    }

    fn certificates(&self) -> Option<TlsCertificates> {
        self.trust.clone().map(|pem| TlsCertificates { client_tls: None, root_cert: Some(pem) })
    }

    fn sentinel(
        &self,
        info: &ConnectionInfo,
        service: &str,
        nodes: &[String],
        password: Option<&Secret>,
    ) -> Result<SentinelClient, OpenError> {
        let nodes = all_nodes(info, nodes)?;
        let builder = SentinelClientBuilder::new(nodes, service, SentinelServerType::Master);
        let mut builder = builder.map_err(unusable)?.set_client_to_redis_db(info.redis_settings().db());
        if let Some(user) = info.redis_settings().username() {
            builder = builder.set_client_to_redis_username(user);
        }
        if let Some(password) = info.redis_settings().password() {
            builder = builder.set_client_to_redis_password(password);
        }
        if let Some(password) = password {
            let password =
                std::str::from_utf8(password.expose()).map_err(|_not_text| OpenError::BadAddress)?;
            builder = builder.set_client_to_sentinel_password(password);
        }
        if matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
            builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
            builder = builder.set_client_to_sentinel_tls_mode(TlsMode::Secure);
        }
        if let Some(certificates) = self.certificates() {
            builder = builder.set_client_to_redis_certificates(certificates.clone());
            builder = builder.set_client_to_sentinel_certificates(certificates);
        }
        builder.build().map_err(unusable)
    }

    fn cluster(&self, info: &ConnectionInfo, nodes: &[String]) -> Result<ClusterClient, OpenError> {
        let nodes = all_nodes(info, nodes)?.into_iter().map(|node| info.clone().set_addr(node));
        let builder = ClusterClientBuilder::new(nodes.collect::<Vec<_>>())
            .connection_timeout(self.connecting())
            .response_timeout(self.connecting())
            .retries(2);
        let builder = match self.certificates() {
            None => builder,
            Some(certificates) => builder.certs(certificates),
        };
        builder.build().map_err(unusable)
    }
}

/// The address, and the other nodes in its manner.
fn all_nodes(info: &ConnectionInfo, nodes: &[String]) -> Result<Vec<ConnectionAddr>, OpenError> {
    let others =
        nodes.iter().map(|node| like(info.addr(), node).ok_or_else(|| OpenError::BadNode(node.clone())));
    std::iter::once(Ok(info.addr().clone())).chain(others).collect()
}

/// A node that is spoken to like that one: with TLS, or without.
fn like(addr: &ConnectionAddr, node: &str) -> Option<ConnectionAddr> {
    let (host, port) = node.rsplit_once(':')?;
    let host = host.strip_prefix('[').map_or(Some(host), |host| host.strip_suffix(']'))?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    // SECURITY: what a node is called is no place for a user or a password, which would be shown.
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:%".contains(&byte);
    if host.is_empty() || !host.bytes().all(is_host) {
        return None;
    }
    match addr {
        ConnectionAddr::Tcp(..) => Some(ConnectionAddr::Tcp(host.to_owned(), port)),
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => Some(ConnectionAddr::TcpTls {
            host: host.to_owned(),
            port,
            insecure: *insecure,
            tls_params: tls_params.clone(),
        }),
        _ => None,
    }
}

/// SECURITY: without the error's own words, which may repeat the address, and a password in it.
fn unusable(_error: RedisError) -> OpenError {
    OpenError::BadAddress
}
