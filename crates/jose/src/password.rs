//! Stored passwords: Argon2id (RFC 9106) and bcrypt.
//!
//! SECURITY: checking one costs tens of milliseconds and megabytes on purpose. Nothing here may run on a thread that
//! carries requests.

use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use zeroize::Zeroizing;

use crate::digest::{NoRandomness, constant_time_eq, random, sha256};

/// What new hashes are made with, and what older ones are measured by: the first choice of OWASP's Password Storage
/// Cheat Sheet for 19 MiB.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// The cost of bcrypt below which a hash counts as weak.
const BCRYPT_COST: u32 = 10;

/// Bounds of what is taken: a policy file must not be able to make one check take minutes or gigabytes.
const MAX_MEMORY_KIB: u32 = 256 * 1024;
const MAX_PASSES: u32 = 16;
const MAX_LANES: u32 = 16;
const MAX_BCRYPT_COST: u32 = 14;

/// bcrypt looks at no more bytes of a password.
pub const BCRYPT_BYTES: usize = 72;

/// The stored form of one password.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash {
    kind: Kind,
    /// SHA-256 of the text: what tells two stored forms apart.
    mark: [u8; 32],
}

#[derive(Clone, PartialEq, Eq)]
enum Kind {
    Argon2id { memory_kib: u32, passes: u32, lanes: u32, salt: Vec<u8>, hash: Vec<u8> },
    Bcrypt { cost: u32, text: String },
}

/// Why a text is no stored password that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordHashError {
    /// Nothing of the kind.
    #[error("neither `$argon2id$…` nor `$2b$…`")]
    Unknown,
    /// The right beginning, and something that does not belong there.
    #[error("broken: it is not in the form its beginning announces")]
    Broken,
    /// Stronger than anything that can be checked while a caller waits, or weaker than any hash at all.
    #[error(
        "made with parameters outside what is taken: at most 256 MiB, 16 passes and 16 lanes; cost 4 to 14"
    )]
    OutOfBounds,
}

impl PasswordHash {
    /// Reads `$argon2id$v=19$m=…,t=…,p=…$salt$hash` or `$2b$cost$…` (also `$2a$`, `$2y$`).
    ///
    /// # Errors
    /// It is neither, or made with parameters that are out of bounds.
    pub fn parse(text: &str) -> Result<Self, PasswordHashError> {
        let kind = match text.split('$').collect::<Vec<_>>().as_slice() {
            ["", "argon2id", version, parameters, salt, hash] => argon2id(version, parameters, salt, hash)?,
            ["", "argon2id", ..] => return Err(PasswordHashError::Broken),
            ["", "2a" | "2b" | "2y", cost, rest] => bcrypt_kind(text, cost, rest)?,
            ["", "2a" | "2b" | "2y", ..] => return Err(PasswordHashError::Broken),
            _ => return Err(PasswordHashError::Unknown),
        };
        Ok(Self { kind, mark: sha256(text.as_bytes()) })
    }

    /// Whether this is the password. Takes long.
    pub fn verify(&self, password: &[u8]) -> bool {
        match &self.kind {
            Kind::Argon2id { memory_kib, passes, lanes, salt, hash } => {
                let mut made = Zeroizing::new(vec![0; hash.len()]);
                let Ok(params) = Params::new(*memory_kib, *passes, *lanes, Some(hash.len())) else {
                    return false;
                };
                let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
                argon2.hash_password_into(password, salt, &mut made).is_ok() && constant_time_eq(&made, hash)
            }
            Kind::Bcrypt { text, .. } => {
                // SECURITY: bcrypt cuts passwords off, and a password that only begins like the right one is wrong.
                // The work is done all the same, so that the time does not tell which users have such a hash.
                let seen = password.get(..BCRYPT_BYTES).unwrap_or(password);
                let fits = bcrypt::verify(seen, text).unwrap_or(false);
                fits && password.len() <= BCRYPT_BYTES
            }
        }
    }

    /// Whether it is cheaper to guess than what [`PasswordHash::make`] makes.
    pub fn is_weak(&self) -> bool {
        match self.kind {
            Kind::Argon2id { memory_kib, passes, .. } => {
                u64::from(memory_kib) * u64::from(passes) < u64::from(MEMORY_KIB) * u64::from(PASSES)
                    || memory_kib < 7 * 1024
            }
            Kind::Bcrypt { cost, .. } => cost < BCRYPT_COST,
        }
    }

    /// What tells this stored form from every other: changed passwords have changed marks.
    pub const fn mark(&self) -> &[u8; 32] {
        &self.mark
    }

    /// The stored form of a password, with a new salt, under the present parameters. Takes long.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn make(password: &[u8]) -> Result<String, NoRandomness> {
        let salt = random::<16>()?;
        let mut hash = [0; 32];
        let params = Params::new(MEMORY_KIB, PASSES, LANES, Some(hash.len()));
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.unwrap_or_default());
        // Nothing of the above can be out of bounds, short of a password of four gigabytes.
        argon2.hash_password_into(password, &salt, &mut hash).map_err(|_too_long| NoRandomness)?;
        Ok(format!(
            "$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p={LANES}${}${}",
            STANDARD_NO_PAD.encode(salt),
            STANDARD_NO_PAD.encode(hash)
        ))
    }
}

/// SECURITY: a stored password can be guessed at by whoever sees it.
impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(redacted)")
    }
}

fn argon2id(version: &str, parameters: &str, salt: &str, hash: &str) -> Result<Kind, PasswordHashError> {
    if version != "v=19" {
        return Err(PasswordHashError::Broken);
    }
    let [memory_kib, passes, lanes] = match parameters.split(',').collect::<Vec<_>>().as_slice() {
        [m, t, p] => [number(m, "m=")?, number(t, "t=")?, number(p, "p=")?],
        _ => return Err(PasswordHashError::Broken),
    };
    let decode = |text: &str| STANDARD_NO_PAD.decode(text).map_err(|_| PasswordHashError::Broken);
    let (salt, hash) = (decode(salt)?, decode(hash)?);
    let allowed = (Params::MIN_M_COST..=MAX_MEMORY_KIB).contains(&memory_kib)
        && memory_kib >= lanes.saturating_mul(8)
        && (1..=MAX_PASSES).contains(&passes)
        && (1..=MAX_LANES).contains(&lanes)
        && (8..=64).contains(&salt.len())
        && (16..=64).contains(&hash.len());
    if !allowed {
        return Err(PasswordHashError::OutOfBounds);
    }
    Ok(Kind::Argon2id { memory_kib, passes, lanes, salt, hash })
}

fn number(text: &str, name: &str) -> Result<u32, PasswordHashError> {
    let digits = text.strip_prefix(name).ok_or(PasswordHashError::Broken)?;
    if digits.is_empty() || digits.starts_with('0') || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(PasswordHashError::Broken);
    }
    digits.parse().map_err(|_| PasswordHashError::OutOfBounds)
}

fn bcrypt_kind(text: &str, cost: &str, rest: &str) -> Result<Kind, PasswordHashError> {
    let alphabet = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'/';
    if cost.len() != 2 || rest.len() != 53 || !rest.bytes().all(alphabet) {
        return Err(PasswordHashError::Broken);
    }
    let cost: u32 = cost.parse().map_err(|_| PasswordHashError::Broken)?;
    if !(4..=MAX_BCRYPT_COST).contains(&cost) {
        return Err(PasswordHashError::OutOfBounds);
    }
    Ok(Kind::Bcrypt { cost, text: text.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::{PasswordHash, PasswordHashError};

    /// The vector of the reference implementation (`test.c` of phc-winner-argon2): password, somesalt.
    const ARGON2ID: &str =
        "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";

    /// Vectors of OpenBSD and of jBCrypt's `TestBCrypt`.
    const BCRYPT: &[(&str, &str)] = &[
        ("U*U", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"),
        ("a", "$2a$06$m0CrhHm10qJ3lXRY.5zDGO3rS2KdeeWLuGmsfGlMfOxih58VYVfxe"),
        ("abc", "$2a$06$If6bvum7DFjUnE9p2uDeDu0YHzrHM6tf.iqN8.yx.jNN1ILEf7h0i"),
    ];

    #[test]
    fn argon2id_agrees_with_its_reference() {
        let hash = PasswordHash::parse(ARGON2ID).expect("a hash");
        assert!(hash.verify(b"password"));
        assert!(!hash.verify(b"Password") && !hash.verify(b"") && !hash.verify(b"password\0"));
        assert!(!hash.is_weak());
    }

    #[test]
    fn bcrypt_agrees_with_its_reference() {
        for (password, text) in BCRYPT {
            let hash = PasswordHash::parse(text).expect("a hash");
            assert!(hash.verify(password.as_bytes()), "{text}");
            assert!(!hash.verify(b"another"), "{text}");
            assert!(hash.is_weak());
            let other = text.replacen("$2a$", "$2y$", 1);
            assert!(PasswordHash::parse(&other).expect("a hash").verify(password.as_bytes()));
        }
    }

    /// A password that only begins like the right one is wrong.
    #[test]
    fn bcrypt_does_not_cut_passwords_off() {
        let right = [b'a'; 72];
        let hash = bcrypt::hash(right, 4).expect("a hash");
        let hash = PasswordHash::parse(&hash).expect("a hash");
        assert!(hash.verify(&right));
        assert!(!hash.verify(&[b'a'; 73]) && !hash.verify(&[b'a'; 71]));
    }

    #[test]
    fn what_is_made_is_read_and_no_two_are_alike() {
        let (one, other) =
            (PasswordHash::make(b"se:cret").expect("made"), PasswordHash::make(b"se:cret").expect("made"));
        assert_ne!(one, other);
        let (one, other) =
            (PasswordHash::parse(&one).expect("read"), PasswordHash::parse(&other).expect("read"));
        assert_ne!(one.mark(), other.mark());
        assert!(one.verify(b"se:cret") && !one.verify(b"secret") && !one.is_weak());
        assert_eq!(format!("{one:?}"), "PasswordHash(redacted)");
    }

    #[test]
    fn what_is_not_a_stored_password_is_refused() {
        let broken = PasswordHashError::Broken;
        let bounds = PasswordHashError::OutOfBounds;
        let unknown = PasswordHashError::Unknown;
        let bcrypt = BCRYPT[0].1;
        for (text, expected) in [
            (String::new(), unknown),
            ("secret".to_owned(), unknown),
            ("{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=".to_owned(), unknown),
            (ARGON2ID.replace("argon2id", "argon2i"), unknown),
            (ARGON2ID.replace("v=19", "v=16"), broken),
            (ARGON2ID.replace("$v=19", ""), broken),
            (ARGON2ID.replace("t=2,p=1", "p=1,t=2"), broken),
            (ARGON2ID.replace("m=65536", "m=065536"), broken),
            (ARGON2ID.replace("p=1", "p=1,data=x"), broken),
            (ARGON2ID.replace("c29tZXNhbHQ", "c29tZXNhbHQ="), broken),
            (ARGON2ID.replace("m=65536", "m=4194304"), bounds),
            (ARGON2ID.replace("m=65536", "m=99999999999"), bounds),
            (ARGON2ID.replace("t=2", "t=1000"), bounds),
            (ARGON2ID.replace("p=1", "p=255"), bounds),
            (ARGON2ID.replace("c29tZXNhbHQ", "c29t"), bounds),
            (bcrypt.replace("$05$", "$31$"), bounds),
            (bcrypt.replace("$05$", "$03$"), bounds),
            (bcrypt.replace("$05$", "$5$"), broken),
            (format!("{bcrypt}x"), broken),
            (bcrypt.replace("E5YPO", "E5-PO"), broken),
        ] {
            assert_eq!(PasswordHash::parse(&text).err(), Some(expected), "{text}");
        }
    }
}
