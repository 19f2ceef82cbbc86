//! Everything the demo needs, made when it starts: certificates, keys, tokens, policies.

use anyhow::Context as _;
use portcullis_authn::{generate_key, hash_key};
use portcullis_core::Secret;
use portcullis_jose::{base64url, digest};

use super::Addresses;
use super::authority::Authority;
use super::folder::Folder;
use super::identity_provider::{AUDIENCE, IdentityProvider, Registered};

/// The policy files as they are shipped with the program; `@name@` stands for what is only known at the start.
const POLICIES: &[(&str, &str)] = &[
    ("gateway.yaml", include_str!("policies/gateway.yaml")),
    ("apis/open-banking.yaml", include_str!("policies/apis/open-banking.yaml")),
    ("apis/partners.yaml", include_str!("policies/apis/partners.yaml")),
    ("apis/status.yaml", include_str!("policies/apis/status.yaml")),
    ("clients/partners.yaml", include_str!("policies/clients/partners.yaml")),
];

/// The client of the identity provider, and the holder of the certificate its tokens are bound to.
const THIRD_PARTY: &str = "tpp-a";

/// The partners with an API key.
const PARTNERS: [&str; 2] = ["acme", "globex"];

/// Fills the directory and returns the identity provider that signed its tokens.
///
/// # Errors
/// Something could not be made or written.
pub(crate) fn write(folder: &Folder, addresses: &Addresses) -> anyhow::Result<IdentityProvider> {
    let thumbprint = certificates(folder)?;
    let provider = tokens(folder, addresses, thumbprint)?;
    let mut words = vec![
        ("gateway", addresses.gateway.to_string()),
        ("admin", addresses.admin.to_string()),
        ("identity", addresses.identity.to_string()),
        ("upstream", addresses.upstream.to_string()),
        ("audience", AUDIENCE.to_owned()),
    ];
    words.extend(api_keys(folder)?);
    for (name, text) in POLICIES {
        let text = words
            .iter()
            .fold((*text).to_owned(), |text, (word, value)| text.replace(&format!("@{word}@"), value));
        folder.write(&format!("policies/{name}"), text)?;
    }
    Ok(provider)
}

/// Makes both authorities and what they certify. Returns the SHA-256 of the third party's certificate.
fn certificates(folder: &Folder) -> anyhow::Result<[u8; 32]> {
    let bank = Authority::new("Demo Bank", "Demo Bank server authority")?;
    folder.write("ca.pem", &bank.certificate)?;
    let server = bank.server("Demo Bank")?;
    folder.write("policies/tls/server.pem", server.certificate)?;
    folder.write("policies/tls/server.key", server.key)?;
    let open_banking = Authority::new("Demo Open Banking", "Demo open banking authority")?;
    folder.write("policies/tls/open-banking-ca.pem", &open_banking.certificate)?;
    let holder = open_banking.caller("Third Party A", THIRD_PARTY)?;
    folder.write("tpp-a.pem", holder.certificate + &holder.key)?;
    let thief = open_banking.caller("Third Party B", "tpp-b")?;
    folder.write("tpp-b.pem", thief.certificate + &thief.key)?;
    Ok(digest::sha256(&holder.der))
}

/// Starts the provider's books and writes two of its tokens, and a request for another.
fn tokens(folder: &Folder, addresses: &Addresses, thumbprint: [u8; 32]) -> anyhow::Result<IdentityProvider> {
    let secret = secret()?;
    let client = Registered {
        id: THIRD_PARTY,
        secret: Secret::new(secret.clone().into_bytes()),
        thumbprint,
        scopes: &["accounts", "payments"],
    };
    let provider = IdentityProvider::new(format!("http://{}", addresses.identity), vec![client])?;
    for (file, scope) in [("accounts.hdr", "accounts"), ("payments.hdr", "accounts payments")] {
        folder.write(file, format!("authorization: Bearer {}\n", provider.token(THIRD_PARTY, scope)?))?;
    }
    let request = format!(
        "grant_type=client_credentials&client_id={THIRD_PARTY}&client_secret={secret}&scope=accounts"
    );
    folder.write("token-request.form", request)?;
    Ok(provider)
}

/// Makes a key for each partner. Returns what the policies know of them: their keyed hashes.
fn api_keys(folder: &Folder) -> anyhow::Result<Vec<(&'static str, String)>> {
    let pepper = secret()?;
    folder.write("policies/secrets/pepper", &pepper)?;
    let pepper = Secret::new(pepper.into_bytes());
    PARTNERS
        .into_iter()
        .map(|name| {
            let key = generate_key().context("cannot make an API key")?;
            folder.write(&format!("{name}.hdr"), format!("x-api-key: {key}\n"))?;
            Ok((name, hash_key(&pepper, &key).to_string()))
        })
        .collect()
}

fn secret() -> anyhow::Result<String> {
    Ok(base64url::encode(&digest::random::<32>().context("cannot make a secret")?))
}
