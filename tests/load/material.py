"""Keys, certificates, tokens and API keys of the benchmark, made once and kept in the cache folder."""

import base64
import hashlib
import hmac
import json
import random
import subprocess
import time

ISSUER, AUDIENCE = "https://issuer.example", "portcullis-load"
TOKENS, CLIENTS, USED = 10_000, 100_000, 10_000
PER_FILE = 5_000  # a policy file is bounded, so that a hostile one cannot eat the machine
LIFE = 30 * 86_400


def make(folder, generator, each_kind):
    """Fills the folder unless it is filled; `generator` is the program that signs tokens. `each_kind`: tokens of every
    algorithm are wanted too, which takes minutes."""
    folder.mkdir(parents=True, exist_ok=True)
    once(folder, "made", lambda: (certificates(folder), tokens(folder, generator), api_keys(folder)))
    once(folder, "made-others", lambda: others(folder))
    if each_kind:
        once(folder, "made-each-kind", lambda: tokens_of_each_kind(folder, generator))


def once(folder, name, fill):
    done = folder / name
    if not done.exists() or time.time() - float(done.read_text()) >= LIFE / 2:
        fill()
        done.write_text(str(time.time()))


def openssl(folder, *arguments):
    subprocess.run(("openssl", *arguments), check=True, cwd=folder, capture_output=True)


def certificates(folder):
    """One authority, a server and a client: ECDSA P-256."""
    for name in ("ca", "server", "client"):
        openssl(folder, "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", f"{name}.key")
    openssl(folder, "req", "-x509", "-new", "-key", "ca.key", "-days", "60", "-subj", "/CN=load-ca", "-out", "ca.crt",
            "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    for name, usage in (("server", "serverAuth"), ("client", "clientAuth")):
        (folder / f"{name}.ext").write_text(
            f"subjectAltName=DNS:localhost\nextendedKeyUsage={usage}\nbasicConstraints=CA:FALSE\nkeyUsage=digitalSignature\n")
        openssl(folder, "req", "-new", "-key", f"{name}.key", "-subj", f"/CN=load-{name}", "-out", f"{name}.csr")
        openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
                "-days", "60", "-extfile", f"{name}.ext", "-out", f"{name}.crt")
    (folder / "server.pem").write_text((folder / "server.crt").read_text() + (folder / "server.key").read_text())


def tokens(folder, generator):
    """RS256, ten thousand of them, and one bound to the client's certificate."""
    openssl(folder, "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", "issuer.key")
    openssl(folder, "pkey", "-in", "issuer.key", "-pubout", "-out", "issuer.pub")
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "user-{n}", "client_id": "client-{n}", "jti": "id-{n}",
              "scope": "orders:read orders:write profile", "iat": now, "nbf": now - 60, "exp": now + LIFE,
              "roles": ["reader", "writer"], "tenant": "t-7"}

    def sign(count, claims):
        path = folder / "claims.json"
        path.write_text(json.dumps(claims))
        return run(generator, "tokens", str(count), str(folder / "issuer.key"), str(path), "RS256").splitlines()

    many = sign(TOKENS, claims)
    (folder / "tokens.txt").write_text("".join(f"Authorization: Bearer {token}\n" for token in many))
    bound = claims | {"cnf": {"x5t#S256": run(generator, "thumbprint", str(folder / "client.crt")).strip()}}
    (folder / "bound.txt").write_text(f"Authorization: Bearer {sign(1, bound)[0]}\n")


# More than any worker remembers, so that sent in turn each of them is new.
EACH_KIND = 60_000


def tokens_of_each_kind(folder, generator):
    """Many short tokens for each algorithm, and the key that verifies them."""
    keys = {"RS256": ("RSA", "rsa_keygen_bits:2048"), "PS256": ("RSA", "rsa_keygen_bits:2048"),
            "ES256": ("EC", "ec_paramgen_curve:P-256"), "EdDSA": ("ED25519", None)}
    now = int(time.time())
    claims = folder / "claims.json"
    claims.write_text(json.dumps({"iss": ISSUER, "aud": AUDIENCE, "sub": "user-{n}", "client_id": "client-{n}",
                                  "jti": "id-{n}", "scope": "orders:read", "iat": now, "exp": now + LIFE}))
    for algorithm, (kind, option) in keys.items():
        name = algorithm.lower()
        options = ("-pkeyopt", option) if option else ()
        openssl(folder, "genpkey", "-algorithm", kind, *options, "-out", f"{name}.key")
        openssl(folder, "pkey", "-in", f"{name}.key", "-pubout", "-out", f"{name}.pub")
        signed = run(generator, "tokens", str(EACH_KIND), str(folder / f"{name}.key"), str(claims), algorithm)
        (folder / f"{name}.txt").write_text("".join(f"Authorization: Bearer {token}\n" for token in signed.splitlines()))


def proofs(folder, generator, kind, files, name, count):
    """Requests that carry a proof each."""
    found = [str(folder / file) for file in files]
    (folder / name).write_text(run(generator, "signed", kind, str(count), "load.example", *found))


def others(folder):
    """A secret that proofs are made with, a name with its password, opaque tokens."""
    (folder / "proof-secret").write_text("load-secret-load-secret-load-secret-load-secret")
    credentials = base64.b64encode(b"load:password").decode()
    (folder / "basic.txt").write_text(f"Authorization: Basic {credentials}\n")
    (folder / "opaque.txt").write_text("".join(f"Authorization: Bearer opaque-{n:020}\n" for n in range(EACH_KIND * 2)))


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def api_keys(folder):
    """A hundred thousand registered clients with a key each, in every gateway's own form."""
    pepper = b"load-pepper-load-pepper-load-pepper-load-pepper"
    (folder / "pepper").write_bytes(pepper)
    choose = random.Random(7)
    alphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    keys = ["".join(choose.choices(alphabet, k=43)) for _ in range(CLIENTS)]
    (folder / "keys.txt").write_text("".join(f"X-Api-Key: {key}\n" for key in choose.sample(keys, USED)))
    (folder / "keys.haproxy").write_text("".join(f"{key} client-{n}\n" for n, key in enumerate(keys)))
    (folder / "keys.nginx").write_text("".join(f'"{key}" client-{n};\n' for n, key in enumerate(keys)))
    (folder / "clients").mkdir(exist_ok=True)
    for start in range(0, CLIENTS, PER_FILE):
        with open(folder / f"clients/clients-{start // PER_FILE}.yaml", "w", encoding="ascii") as file:
            file.write("clients:\n")
            for number in range(start, start + PER_FILE):
                hashed = hmac.digest(pepper, keys[number].encode(), hashlib.sha256)
                digest = base64.urlsafe_b64encode(hashed).rstrip(b"=").decode()
                file.write(f'  client-{number}: {{ credentials: [{{ api_key: {{ hash: "pk1:{digest}" }} }}] }}\n')
