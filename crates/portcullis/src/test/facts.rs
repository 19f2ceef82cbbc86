//! What tests may refer to: the names that the policy files define, and how each issuer's and client's credentials look.

use portcullis_core::document::Node;
use portcullis_core::{Place, Spanned};
use portcullis_gateway::rehearsal::Written;
use portcullis_jose::Algorithm;

use super::tree::{along, anywhere, at, entries, members, text, text_at};

/// Names, each with the place where it is defined.
pub(crate) type Names = Vec<(String, Place)>;

/// What the policy files define.
#[derive(Default)]
pub(crate) struct Facts {
    pub(crate) listeners: Names,
    pub(crate) anchors: Names,
    pub(crate) issuers: Vec<IssuerFacts>,
    pub(crate) clients: Vec<ClientFacts>,
    pub(crate) apis: Vec<ApiFacts>,
}

/// One entry of `issuers:`.
#[derive(Clone)]
pub(crate) struct IssuerFacts {
    pub(crate) name: Spanned<String>,
    pub(crate) issuer: Option<String>,
    pub(crate) audience: Option<String>,
    pub(crate) algorithms: Vec<Algorithm>,
    pub(crate) profile: String,
    pub(crate) header_type: Option<String>,
    pub(crate) content_type: Option<&'static str>,
    pub(crate) keys: KeysAt,
    pub(crate) introspect: Option<Introspect>,
}

/// Where an issuer's keys are.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum KeysAt {
    /// In files without names.
    Pem,
    /// In a set that is part of the policies.
    Set,
    /// A secret.
    Secret,
    /// At a URL, in which parts of the caller's certificate may stand.
    Url(String),
    /// Where the provider's own metadata says.
    Discovered,
    /// With the clients.
    Clients,
    /// Nowhere: it is asked.
    Nowhere,
}

/// How a provider is asked about tokens.
#[derive(Clone)]
pub(crate) struct Introspect {
    pub(crate) url: Option<String>,
    pub(crate) prefix: String,
    pub(crate) signed: bool,
    pub(crate) client_id: String,
}

/// One registered client.
#[derive(Clone)]
pub(crate) struct ClientFacts {
    pub(crate) name: Spanned<String>,
    pub(crate) credentials: Vec<(String, Node)>,
}

/// One API.
#[derive(Clone)]
pub(crate) struct ApiFacts {
    pub(crate) name: Spanned<String>,
    pub(crate) host: Option<String>,
    pub(crate) authenticate: Option<Node>,
    pub(crate) rules: Names,
}

impl Facts {
    /// Reads them off the trees. What is wrong with these is found when they are compiled.
    pub(crate) fn of(written: &Written) -> Self {
        let mut facts = Self::default();
        if let Some(root) = written.gateway() {
            let listeners = at(root, "listen").map(entries).unwrap_or_default();
            facts.listeners = listeners.iter().map(|entry| named(&entry.key)).collect();
            for listener in listeners {
                anchors(&listener.value, &mut facts.anchors);
            }
            let issuers = at(root, "issuers").map(entries).unwrap_or_default();
            facts.issuers = issuers.iter().map(|entry| issuer(&entry.key, &entry.value)).collect();
        }
        for entry in written.clients().filter_map(|root| at(root, "clients")).flat_map(entries) {
            let credentials = at(&entry.value, "credentials").map(members).unwrap_or_default();
            let credentials = credentials.iter().flat_map(entries);
            facts.clients.push(ClientFacts {
                name: entry.key.clone(),
                credentials: credentials.map(|one| (one.key.value.clone(), one.value.clone())).collect(),
            });
        }
        facts.apis = written.apis().filter_map(api).collect();
        facts
    }

    /// An API of that name.
    pub(crate) fn api(&self, name: &str) -> Option<&ApiFacts> {
        self.apis.iter().find(|api| api.name.value == name)
    }

    /// An issuer of that name.
    pub(crate) fn issuer(&self, name: &str) -> Option<&IssuerFacts> {
        self.issuers.iter().find(|issuer| issuer.name.value == name)
    }

    /// A client of that name.
    pub(crate) fn client(&self, name: &str) -> Option<&ClientFacts> {
        self.clients.iter().find(|client| client.name.value == name)
    }

    /// The names of all clients.
    pub(crate) fn client_names(&self) -> Names {
        self.clients.iter().map(|client| named(&client.name)).collect()
    }

    /// The key ids of all clients' credentials of that kind.
    pub(crate) fn key_ids(&self, kind: &str) -> Names {
        let of_kind = self.clients.iter().flat_map(|client| client.of_kind(kind));
        let ids = of_kind.filter_map(|(_, node)| at(node, "key_id"));
        ids.filter_map(|id| Some((text(id)?.to_owned(), id.place))).collect()
    }

    /// The client and the credential with that key id.
    pub(crate) fn signer(&self, kind: &str, key_id: &str) -> Option<(&ClientFacts, usize, &Node)> {
        self.clients.iter().find_map(|client| {
            let mut found = client.of_kind(kind);
            let (number, node) = found.find(|(_, node)| text_at(node, "key_id") == Some(key_id))?;
            Some((client, number, node))
        })
    }
}

impl ClientFacts {
    /// Its credentials of one kind, each with its number among all of its credentials.
    pub(crate) fn of_kind(&self, kind: &str) -> impl Iterator<Item = (usize, &Node)> {
        let numbered = self.credentials.iter().enumerate();
        numbered.filter(move |(_, (of, _))| of == kind).map(|(number, (_, node))| (number, node))
    }
}

impl ApiFacts {
    /// What an authenticator of this API is told, under `authenticate:`.
    pub(crate) fn authenticator(&self, kind: &str) -> Option<&Node> {
        anywhere(self.authenticate.as_ref()?, kind)
    }
}

fn named(name: &Spanned<String>) -> (String, Place) {
    (name.value.clone(), name.place)
}

/// Every named authority of a listener.
fn anchors(listener: &Node, into: &mut Names) {
    let own = [along(listener, &["tls"]), along(listener, &["client_certificate_header"])];
    let hosts = along(listener, &["tls", "hosts"]).map(entries).unwrap_or_default();
    for node in own.into_iter().flatten().chain(hosts.iter().map(|host| &host.value)) {
        let trusted = [at(node, "trust"), along(node, &["client_certificates", "trust"])];
        for entry in trusted.into_iter().flatten().flat_map(entries) {
            if at(&entry.value, "file").is_some() && !into.iter().any(|(name, _)| *name == entry.key.value) {
                into.push(named(&entry.key));
            }
        }
    }
}

fn issuer(name: &Spanned<String>, node: &Node) -> IssuerFacts {
    let profile = text_at(node, "profile").unwrap_or("plain").to_owned();
    let (issuer, algorithm, header_type, content_type) = match profile.as_str() {
        "amiko" => (Some("amiko"), Some(Algorithm::Rs256), None, None),
        "ozone" => (None, Some(Algorithm::Ps256), Some("JOSE"), Some("json")),
        "wso2" => (None, Some(Algorithm::Ps256), None, None),
        "rfc9068" | "fapi2" => (None, Some(Algorithm::Es256), Some("at+jwt"), None),
        _ => (None, None, None, None),
    };
    let written = at(node, "algorithms").map(members).unwrap_or_default();
    let mut algorithms: Vec<_> = written.iter().filter_map(|name| Algorithm::parse(text(name)?)).collect();
    if algorithms.is_empty() {
        algorithms.extend(algorithm.or(Some(Algorithm::Es256)));
    }
    let types = at(node, "type").map(members).unwrap_or_default();
    let types = types.iter().filter_map(text).find(|word| *word != "absent");
    IssuerFacts {
        name: name.clone(),
        issuer: text_at(node, "issuer").or(issuer).map(str::to_owned),
        audience: at(node, "audience")
            .map(members)
            .and_then(|audiences| audiences.first().and_then(text))
            .filter(|audience| *audience != "any")
            .map(str::to_owned),
        algorithms,
        profile,
        header_type: types.or(header_type).map(str::to_owned),
        content_type,
        keys: keys(node),
        introspect: at(node, "introspect").map(introspect),
    }
}

fn keys(node: &Node) -> KeysAt {
    let Some(keys) = at(node, "keys") else {
        return if at(node, "discover").is_some() { KeysAt::Discovered } else { KeysAt::Nowhere };
    };
    if text(keys) == Some("clients") {
        return KeysAt::Clients;
    }
    match (text_at(keys, "jwks_url"), at(keys, "pem"), at(keys, "secret")) {
        (Some(url), _, _) => KeysAt::Url(url.to_owned()),
        (None, Some(_), _) => KeysAt::Pem,
        (None, None, Some(_)) => KeysAt::Secret,
        (None, None, None) => KeysAt::Set,
    }
}

fn introspect(node: &Node) -> Introspect {
    Introspect {
        url: text_at(node, "url").map(str::to_owned),
        prefix: text_at(node, "prefix").unwrap_or_default().to_owned(),
        signed: text_at(node, "answers") == Some("signed"),
        client_id: text_at(node, "client_id").unwrap_or_default().to_owned(),
    }
}

/// A host that a pattern takes; `None` where it takes all.
fn host(pattern: &str) -> Option<String> {
    match pattern.strip_prefix('*') {
        Some("") => None,
        Some(rest) => Some(format!("any{rest}")),
        None => Some(pattern.to_owned()),
    }
}

fn api(root: &Node) -> Option<ApiFacts> {
    let name = at(root, "api")?;
    let rules = at(root, "allow").map(members).unwrap_or_default().iter();
    let rules = rules.filter_map(|rule| at(rule, "name"));
    Some(ApiFacts {
        name: Spanned::new(text(name)?.to_owned(), name.place),
        host: along(root, &["match", "host"]).and_then(text).and_then(host),
        authenticate: at(root, "authenticate").cloned(),
        rules: rules.filter_map(|rule| Some((text(rule)?.to_owned(), rule.place))).collect(),
    })
}
