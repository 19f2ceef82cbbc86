//! The bank of most tests: an identity provider, an upstream, certificates, and a gateway before them.

use std::sync::Arc;

use super::certificates::{Authority, Leaf};
use super::client::Client;
use super::gateway::{Directory, Gateway};
use super::idp::{AUDIENCE, ISSUER, Idp};
use super::upstream::Upstream;

/// The host of the bank's API.
pub(crate) const HOST: &str = "api.bank.example";

/// The API of most tests: bound tokens, two rules, no limits.
pub(crate) const OPEN_BANKING: &str = "\
api: open-banking
match: { host: api.bank.example, path: /open-banking/v3/* }
upstream: accounts
authenticate:
  jwt:
    issuer: bank-idp
    bound_to: certificate
identity: { name: claims.client_id, group: claims.tier }
allow:
  - name: read accounts
    methods: [GET]
    paths: [/accounts, \"/accounts/{id}\", \"/accounts/{id}/balances\"]
    scope: accounts
  - name: start a payment
    methods: [POST]
    paths: [/domestic-payments]
    scope: payments
    when: claims.acr == \"urn:openbanking:psd2:sca\"
";

/// An API that takes bearer tokens, with one rule that lets everything through.
pub(crate) const BEARER: &str = "\
api: bearer
match: { host: api.bank.example, path: /bearer/* }
upstream: accounts
authenticate: { jwt: { issuer: bank-idp } }
allow:
  - { name: anything, paths: [\"/*\"] }
";

/// An API that asks for nothing.
pub(crate) const PUBLIC: &str = "\
api: public
match: { host: api.bank.example, path: /public/* }
upstream: accounts
authenticate: { anonymous: { because: public docs } }
allow:
  - { name: anything, paths: [\"/*\"] }
";

/// What is to be started; changed by a test before it starts.
pub(crate) struct Plan {
    pub(crate) directory: Directory,
    pub(crate) idp: Idp,
    pub(crate) upstream: Upstream,
    /// Certifies servers.
    pub(crate) servers: Authority,
    /// Certifies the third parties of open banking.
    pub(crate) third_parties: Authority,
    /// More settings of the TLS listener, each line indented by six blanks.
    pub(crate) listener: String,
    /// More settings of the listener's client certificates, each line indented by eight blanks.
    pub(crate) client_certificates: String,
    /// The authorities of client certificates, as they are written between braces.
    pub(crate) trust: String,
    /// `never`, `optional` or `required`.
    pub(crate) ask: &'static str,
    /// More settings of the issuer, each line indented by four blanks.
    pub(crate) issuer: String,
    /// `keys:` of the issuer, one line.
    pub(crate) keys: String,
    /// The algorithms the issuer may use.
    pub(crate) algorithms: &'static str,
    /// More settings of the upstream, each line indented by four blanks.
    pub(crate) upstream_settings: String,
    /// Further top-level settings.
    pub(crate) settings: String,
    /// More issuers, each line indented by two blanks.
    pub(crate) issuers: String,
    /// `guard:`, one line. Off in most tests: the rows of a hostile suite all come from one address, and would be told
    /// to wait.
    pub(crate) guard: &'static str,
    /// Where `admin` listens.
    pub(crate) admin_address: &'static str,
    /// More settings of `admin`, behind its address.
    pub(crate) admin: &'static str,
    /// Environment variables of the gateway.
    pub(crate) environment: Vec<(String, String)>,
}

impl Plan {
    /// The bank with these APIs.
    pub(crate) fn new(apis: &[&str]) -> Self {
        let directory = Directory::new();
        for (number, api) in apis.iter().enumerate() {
            directory.write(&format!("apis/api-{number}.yaml"), api);
        }
        let servers = Authority::new("Bank servers");
        let third_parties = Authority::new("Open banking root");
        let server = servers.server(&[HOST, "localhost", "127.0.0.1"]);
        directory.write("tls/server.pem", &server.pem).write("tls/server.key", &server.key_pem);
        directory.write("tls/servers-ca.pem", servers.pem());
        directory.write("tls/open-banking-ca.pem", third_parties.pem());
        let idp = Idp::start();
        let keys = format!("{{ jwks_url: \"{}\", http_on_loopback: true }}", idp.jwks_url());
        Self {
            directory,
            upstream: Upstream::start(),
            servers,
            third_parties,
            listener: String::new(),
            client_certificates: String::new(),
            trust: "open-banking: { file: tls/open-banking-ca.pem }".to_owned(),
            ask: "optional",
            issuer: String::new(),
            keys,
            algorithms: "[ES256]",
            upstream_settings: String::new(),
            settings: String::new(),
            issuers: String::new(),
            guard: "guard: off",
            admin_address: "127.0.0.1:0",
            admin: "",
            environment: Vec::new(),
            idp,
        }
    }

    /// Changes the plan.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// `gateway.yaml` as it is written.
    pub(crate) fn gateway_yaml(&self) -> String {
        let trust = if self.ask == "never" {
            String::new()
        } else {
            format!("        trust: {{ {} }}\n", self.trust)
        };
        format!(
            "version: 1
listen:
  public:
    address: 127.0.0.1:0
    tls:
      certificate: {{ file: tls/server.pem }}
      key: {{ file: tls/server.key }}
      client_certificates:
        ask: {ask}
{trust}{client_certificates}{listener}  plain:
    address: 127.0.0.1:0
issuers:
  bank-idp:
    issuer: {ISSUER}
    audience: {AUDIENCE}
    algorithms: {algorithms}
    keys: {keys}
{issuer}{issuers}upstreams:
  accounts:
    urls: [\"{upstream}\"]
{upstream_settings}store: {{ path: data/portcullis.redb }}
admin: {{ address: {admin_address}{admin} }}
shutdown: {{ lame_duck: 100ms, grace: 10s }}
{guard}
{settings}",
            ask = self.ask,
            client_certificates = self.client_certificates,
            listener = self.listener,
            algorithms = self.algorithms,
            keys = self.keys,
            issuer = self.issuer,
            issuers = self.issuers,
            upstream = self.upstream.url(),
            upstream_settings = self.upstream_settings,
            guard = self.guard,
            admin_address = self.admin_address,
            admin = self.admin,
            settings = self.settings,
        )
    }

    /// Writes the settings, without starting anything.
    pub(crate) fn write(&self) {
        self.directory.write("gateway.yaml", self.gateway_yaml());
    }

    /// Starts the gateway.
    pub(crate) fn start(self) -> World {
        self.write();
        let environment: Vec<(&str, &str)> =
            self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let gateway = Gateway::start_with(self.directory.path(), &environment);
        World { tpp_a: Arc::new(self.third_parties.client("tpp-a")), plan: self, gateway }
    }
}

impl Plan {
    /// Starts the gateway, and then lets no file grow or change any more, as on a disk that is full.
    pub(crate) fn start_with_full_disk(self) -> World {
        self.write();
        let gateway = Gateway::start_with_small_disk(self.directory.path());
        gateway.disk_is_full(true);
        World { tpp_a: Arc::new(self.third_parties.client("tpp-a")), plan: self, gateway }
    }
}

/// The running bank.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) gateway: Gateway,
    /// The certificate of the third party whose tokens the rig makes.
    pub(crate) tpp_a: Arc<Leaf>,
}

impl World {
    /// Starts a bank with these APIs.
    pub(crate) fn with(apis: &[&str]) -> Self {
        Plan::new(apis).start()
    }

    /// The identity provider.
    pub(crate) fn idp(&self) -> &Idp {
        &self.plan.idp
    }

    /// The upstream.
    pub(crate) fn upstream(&self) -> &Upstream {
        &self.plan.upstream
    }

    /// A client of the TLS listener, without a certificate.
    pub(crate) fn stranger(&self) -> Client {
        Client::tls(self.gateway.address("public"), HOST, &self.plan.servers)
    }

    /// A client of the TLS listener, with the third party's certificate.
    pub(crate) fn client(&self) -> Client {
        self.stranger().certificate(&self.tpp_a)
    }

    /// A client of the listener without TLS.
    pub(crate) fn plain(&self) -> Client {
        Client::plain(self.gateway.address("plain"), HOST)
    }

    /// A good token bound to the third party's certificate.
    pub(crate) fn bound_token(&self) -> String {
        self.idp().token().bound_to(&self.tpp_a).sign()
    }

    /// Checks that nothing has reached the upstream.
    #[track_caller]
    pub(crate) fn assert_upstream_untouched(&self) {
        assert_eq!(self.upstream().hits(), 0, "{:?}", self.upstream().received());
    }

    /// Stops the gateway and starts it again on the same directory.
    pub(crate) fn restart(self) -> Self {
        let Self { plan, gateway, tpp_a } = self;
        let (status, log) = gateway.stop();
        assert!(status.success(), "{status}: {log}");
        let gateway = Gateway::start(plan.directory.path());
        Self { plan, gateway, tpp_a }
    }

    /// Kills the gateway and starts it again on the same directory.
    pub(crate) fn kill_and_restart(self) -> Self {
        let Self { plan, gateway, tpp_a } = self;
        gateway.kill();
        let gateway = Gateway::start(plan.directory.path());
        Self { plan, gateway, tpp_a }
    }
}
