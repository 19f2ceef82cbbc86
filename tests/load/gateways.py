"""How each gateway is set up for each scenario. This is the place to argue about fairness.

All of them: keep-alive to the upstream, X-Forwarded-For added, no access log, one worker a core, TLS 1.3 with X25519,
no session tickets and no session cache, so that every handshake is a full one.
"""

import json
import os
import pathlib
import shutil

from material import AUDIENCE, ISSUER

HERE = pathlib.Path(__file__).parent.resolve()
JWT = ("jwt", "jwt-many")
TLS = ("mtls", "handshake")
# Of `password`, which everybody knows.
PASSWORD_HASH = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"


class Setup:
    """One gateway in one scenario: where it listens, and what it may read and write."""

    def __init__(self, scenario, port, upstream, workers, data, run):
        self.scenario, self.port, self.upstream, self.workers = scenario, port, upstream, workers
        self.data, self.run = data, run

    def write(self, name, text):
        path = self.run / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(path)


def portcullis(s, binary):
    """Certificate-bound tokens in `mtls`; the peers check the certificate alone there."""
    folder = s.run / f"portcullis-{s.scenario}"
    shutil.rmtree(folder, ignore_errors=True)
    authenticate = '{ anonymous: { because: "this scenario measures proxying" } }'
    listen, extra, limits, clients, introspect = "", "", "", None, ""
    if s.scenario in JWT:
        authenticate = "{ jwt: { issuer: load } }"
        limits = "limits:\n  - { per: identity, rate: 1000000 per second, burst: 1000000 }\n"
    if s.scenario == "mtls":
        authenticate = "{ jwt: { issuer: load, bound_to: certificate } }"
    if s.scenario == "handshake":
        authenticate = "{ certificate: { trust: load } }"
    algorithms, key = "RS256", "issuer.pub"
    for algorithm in ("RS256", "PS256", "ES256", "EdDSA"):
        if s.scenario in (f"auth-{algorithm.lower()}", f"auth-{algorithm.lower()}-new"):
            authenticate, algorithms, key = "{ jwt: { issuer: load } }", algorithm, f"{algorithm.lower()}.pub"
    if s.scenario in ("auth-external", "auth-external-new"):
        # The service is the upstream of the benchmark: all it says of a caller is what the answer is made of.
        cache = "cache: { at_most: 1h, unstated: 1h }" if s.scenario == "auth-external" else ""
        authenticate = f"""
  external:
    http: {{ url: "http://127.0.0.1:{s.upstream}/", http_on_loopback: true }}
    header: x-api-key
    subject: header.content-type
    timeout: 5s
    {cache}"""
    if s.scenario == "auth-basic":
        authenticate = "{ basic: {} }"
        clients = 'basic: { username: load, password_hash: "' + PASSWORD_HASH + '" }'
    if s.scenario == "auth-hmac":
        authenticate = "{ hmac: { algorithms: [hmac-sha256], covers: ['(request-target)', host, date, digest, x-request-id], max_age: 5m } }"
        clients = f"hmac: {{ key_id: load, secret: {{ file: {s.data}/proof-secret }} }}"
    if s.scenario == "auth-signature":
        authenticate = "{ signature: { algorithms: [hmac-sha256], nonce: required, max_age: 5m } }"
        clients = f"signature: {{ key_id: load, secret: {{ file: {s.data}/proof-secret }}, algorithm: hmac-sha256 }}"
    if s.scenario == "auth-dpop":
        authenticate = "{ jwt: { issuer: load, dpop: { use: required, max_age: 5m, leeway: 1s } } }"
    if s.scenario in ("auth-token", "auth-token-new"):
        authenticate = "{ token: { issuer: provider } }"
        introspect = f"""
  provider:
    audience: {AUDIENCE}
    introspect:
      url: http://127.0.0.1:{s.upstream}/introspect
      http_on_loopback: true
      client_id: gateway
      client_secret: {{ file: {s.data}/proof-secret }}
      cache: 1m"""
    if s.scenario == "api-key":
        authenticate = "{ api_key: { header: x-api-key } }"
        extra = f"api_keys: {{ pepper: {{ file: {s.data}/pepper }} }}\n"
        limits = "limits:\n  - { per: client, rate: 1000000 per second, burst: 1000000 }\n"
        shutil.copytree(s.data / "clients", folder / "clients")
    if s.scenario in TLS:
        listen = f"""
    tls:
      certificate: {{ file: {s.data}/server.crt }}
      key: {{ file: {s.data}/server.key }}
      client_certificates: {{ ask: required, trust: {{ load: {{ file: {s.data}/ca.crt }} }} }}"""
    if clients:
        s.write(f"portcullis-{s.scenario}/clients/load.yaml", f"clients:\n  load: {{ credentials: [{{ {clients} }}] }}\n")
    scope = "scope: orders:read, " if "jwt:" in authenticate else ""
    name = f"portcullis-{s.scenario}"
    s.write(f"{name}/gateway.yaml", f"""version: 1
workers: {s.workers}
access_log: false
listen:
  public:
    address: 127.0.0.1:{s.port}{listen}
issuers:
  load:
    issuer: {ISSUER}
    audience: {AUDIENCE}
    algorithms: [{algorithms}]
    keys: {{ pem: [{s.data}/{key}] }}{introspect}
upstreams:
  load: {{ urls: ["http://127.0.0.1:{s.upstream}"] }}
{extra}store: {{ path: {folder}/load.redb }}
""")
    s.write(f"{name}/apis/load.yaml", f"""api: load
match: {{ host: "*", path: /* }}
upstream: load
authenticate: {authenticate}
allow:
  - {{ name: everything, {scope}paths: ["/*"] }}
{limits}body: {{ max: 64MiB }}
""")
    return [str(binary), "run", "--policies", str(folder)]


def haproxy(s, _):
    bind, rules = f"bind 127.0.0.1:{s.port}", []
    if s.scenario in JWT:
        verify = f'jwt_verify(txn.alg,"{s.data}/issuer.pub")'
        rules = ["http-request set-var(txn.bearer) http_auth_bearer",
                 "http-request deny deny_status 401 unless { var(txn.bearer) -m found }",
                 "http-request set-var(txn.alg) var(txn.bearer),jwt_header_query('$.alg')",
                 "http-request deny deny_status 401 unless { var(txn.alg) -m str RS256 }",
                 f"http-request deny deny_status 401 unless {{ var(txn.bearer),{verify} 1 }}",
                 "http-request set-var(txn.iss) var(txn.bearer),jwt_payload_query('$.iss')",
                 "http-request set-var(txn.aud) var(txn.bearer),jwt_payload_query('$.aud')",
                 "http-request set-var(txn.exp) var(txn.bearer),jwt_payload_query('$.exp','int')",
                 "http-request set-var(txn.now) date()",
                 f"http-request deny deny_status 401 unless {{ var(txn.iss) -m str {ISSUER} }}",
                 f"http-request deny deny_status 401 unless {{ var(txn.aud) -m str {AUDIENCE} }}",
                 "http-request deny deny_status 401 if { var(txn.exp),sub(txn.now) -m int lt 0 }",
                 "http-request set-header X-Auth-Sub %[var(txn.bearer),jwt_payload_query('$.sub')]"]
    if s.scenario == "api-key":
        rules = [f"http-request set-var(txn.client) req.hdr(x-api-key),map_str({s.data}/keys.haproxy)",
                 "http-request deny deny_status 401 unless { var(txn.client) -m found }",
                 "http-request track-sc0 var(txn.client) table limits",
                 "http-request deny deny_status 429 if { sc_http_req_rate(0) gt 100000000 }",
                 "http-request set-header X-Client-Id %[var(txn.client)]", "http-request del-header X-Api-Key"]
    if s.scenario in TLS:
        bind += (f" ssl crt {s.data}/server.pem ca-file {s.data}/ca.crt verify required"
                 " ssl-min-ver TLSv1.3 no-tls-tickets curves X25519")
        rules = ["http-request set-header X-Client-Cert-Hash %[ssl_c_der,sha2(256),hex]",
                 "http-request set-header X-Client-DN %[ssl_c_s_dn]"]
    # Bodies: larger buffers and kernel splicing, the best this gateway can do.
    bodies = s.scenario in ("download", "upload")
    lines = "\n  ".join(rules)
    return ["haproxy", "-db", "-f", s.write(f"haproxy-{s.scenario}.cfg", f"""
global
  nbthread {s.workers}
  maxconn 10000
  tune.ssl.cachesize 0
  no strict-limits
  {"tune.bufsize 65536" if bodies else ""}
  {"tune.pipesize 1048576" if bodies else ""}
defaults
  mode http
  timeout client 120s
  timeout server 120s
  timeout connect 5s
  timeout http-keep-alive 120s
  option forwardfor
  http-reuse always
  {"option splice-auto" if bodies else ""}
backend limits
  stick-table type string len 48 size 200k expire 60s store http_req_rate(10s)
backend service
  server s1 127.0.0.1:{s.upstream} pool-max-conn -1
frontend public
  {bind}
  {lines}
  default_backend service
""")]


def nginx(s, _):
    listen, http, location, modules = f"listen 127.0.0.1:{s.port} backlog=4096", "", "", ""
    if s.scenario in JWT:
        modules = "\n".join(f"load_module /usr/lib/nginx/modules/{name};" for name in ("ndk_http_module.so", "ngx_http_lua_module.so"))
        http = f"""lua_package_path "{HERE}/lua/?.lua;/usr/share/lua/5.1/?.lua;;";
  init_by_lua_block {{ jwt = require("jwt").new("{s.data}/issuer.pub", "RS256", "{ISSUER}", "{AUDIENCE}") }}"""
        location = "access_by_lua_block { jwt:check() }"
    if s.scenario == "api-key":
        http = f"""map_hash_max_size 1048576; map_hash_bucket_size 128;
  map $http_x_api_key $client {{ default ""; include {s.data}/keys.nginx; }}
  limit_req_zone $client zone=limits:64m rate=1000000r/s; limit_req_status 429;"""
        location = ('if ($client = "") { return 401; } limit_req zone=limits burst=1000000 nodelay;'
                    ' proxy_set_header X-Client-Id $client; proxy_set_header X-Api-Key "";')
    if s.scenario in TLS:
        listen += " ssl"
        http = f"""ssl_certificate {s.data}/server.crt; ssl_certificate_key {s.data}/server.key;
  ssl_client_certificate {s.data}/ca.crt; ssl_verify_client on; ssl_protocols TLSv1.3; ssl_session_tickets off;
  ssl_session_cache off; ssl_ecdh_curve X25519;"""
        location = ("proxy_set_header X-Client-Cert-Hash $ssl_client_fingerprint;"
                    " proxy_set_header X-Client-DN $ssl_client_s_dn;")
    buffers = {"download": "proxy_buffers 8 64k; proxy_busy_buffers_size 128k;",
               "upload": "proxy_buffers 8 8k; client_body_buffer_size 128k;"}.get(s.scenario, "proxy_buffers 8 8k;")
    user = "user root;" if os.geteuid() == 0 else ""
    return ["nginx", "-p", str(s.run), "-e", "nginx.err", "-c", s.write(f"nginx-{s.scenario}.conf", f"""
{modules}
{user} daemon off; master_process {"on" if s.workers > 1 else "off"}; worker_processes {s.workers};
error_log nginx.err error; pid nginx-{s.port}.pid; worker_rlimit_nofile 20000;
events {{ worker_connections 10000; multi_accept on; }}
http {{
  access_log off; keepalive_requests 100000000; keepalive_timeout 120s; tcp_nodelay on; server_tokens off;
  client_body_temp_path tmp; proxy_temp_path tmp; fastcgi_temp_path tmp; uwsgi_temp_path tmp; scgi_temp_path tmp;
  client_max_body_size 0;
  {http}
  upstream service {{ server 127.0.0.1:{s.upstream}; keepalive 512; keepalive_requests 100000000; keepalive_timeout 120s; }}
  server {{
    {listen};
    location / {{
      {location}
      proxy_pass http://service; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header Host $http_host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_request_buffering off; proxy_max_temp_file_size 0; proxy_buffer_size 8k; {buffers}
    }}
  }}
}}
""")]


def envoy(s, binary):
    """Plain proxying, tokens and TLS; started only when asked for."""
    if s.scenario == "api-key":
        return None
    types = "type.googleapis.com/envoy.extensions."
    filters, chain, manager = [], {}, {}
    if s.scenario in JWT:
        keys = {"inline_string": json.dumps(public_set(s.data))}
        provider = {"issuer": ISSUER, "audiences": [AUDIENCE], "forward": True, "local_jwks": keys,
                    "jwt_cache_config": {"jwt_cache_size": 20000},
                    "claim_to_headers": [{"header_name": "x-auth-sub", "claim_name": "sub"}]}
        filters.append({"name": "jwt", "typed_config": {
            "@type": types + "filters.http.jwt_authn.v3.JwtAuthentication", "providers": {"p": provider},
            "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "p"}}]}})
    if s.scenario in TLS:
        file = lambda name: {"filename": str(s.data / name)}
        common = {"tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3",
                                 "ecdh_curves": ["X25519"]},
                  "tls_certificates": [{"certificate_chain": file("server.crt"), "private_key": file("server.key")}],
                  "validation_context": {"trusted_ca": file("ca.crt")}}
        chain["transport_socket"] = {"name": "tls", "typed_config": {
            "@type": types + "transport_sockets.tls.v3.DownstreamTlsContext", "require_client_certificate": True,
            "disable_stateless_session_resumption": True, "disable_stateful_session_resumption": True,
            "common_tls_context": common}}
        manager = {"forward_client_cert_details": "SANITIZE_SET", "set_current_client_cert_details": {"subject": True}}
    filters.append({"name": "envoy.filters.http.router", "typed_config": {
        "@type": types + "filters.http.router.v3.Router", "suppress_envoy_headers": True}})
    route = {"match": {"prefix": "/"}, "route": {"cluster": "service", "timeout": "0s"}}
    chain["filters"] = [{"name": "http", "typed_config": {
        "@type": types + "filters.network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": "in",
        "codec_type": "AUTO", "generate_request_id": False, "use_remote_address": True, "http_filters": filters,
        "stream_idle_timeout": "0s", **manager,
        "route_config": {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [route]}]}}}]
    address = lambda port: {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    caps = {name: 1000000 for name in ("max_connections", "max_pending_requests", "max_requests", "max_retries")}
    cluster = {"name": "service", "type": "STATIC", "connect_timeout": "5s",
               "circuit_breakers": {"thresholds": [{"priority": "DEFAULT", **caps}]},
               "load_assignment": {"cluster_name": "service", "endpoints": [
                   {"lb_endpoints": [{"endpoint": {"address": address(s.upstream)}}]}]}}
    config = {"static_resources": {"listeners": [{"name": "l", "address": address(s.port), "filter_chains": [chain]}],
                                   "clusters": [cluster]}}
    path = s.write(f"envoy-{s.scenario}.json", json.dumps(config))
    return [str(binary), "-c", path, "--concurrency", str(s.workers), "--disable-hot-restart", "-l", "error"]


def public_set(data):
    """The issuer's key as a key set."""
    import base64
    import subprocess
    modulus = subprocess.run(["openssl", "rsa", "-pubin", "-in", str(data / "issuer.pub"), "-modulus", "-noout"],
                             check=True, capture_output=True, text=True).stdout.strip().split("=")[1]
    encoded = base64.urlsafe_b64encode(bytes.fromhex(modulus)).rstrip(b"=").decode()
    return {"keys": [{"kty": "RSA", "use": "sig", "alg": "RS256", "n": encoded, "e": "AQAB"}]}


GATEWAYS = {"portcullis": portcullis, "haproxy": haproxy, "nginx": nginx, "envoy": envoy}
