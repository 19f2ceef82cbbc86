// Runs the certified provider `oidc-provider` over TLS, and clients that get tokens from it. Reads one JSON document per
// line from standard input and answers each with one line:
//   {tls: {key, cert, authority}, clients: [...], keys: [kid, ...]}  first of all: starts, prints {port, issuer}
//   {token: {client, secret, resource, key?, cert?, ttl?}}    a client asks for a token: prints {token, type}; with `key`
//                                                  it proves a key (DPoP), with `cert` it shows a certificate (mTLS)
//   {revoke: {token, client, secret}}              RFC 7009: prints {status}
//   {rotate: [kid, ...]}                           signs with the first of these keys from now on, publishes them all
//   {seen: true}                                   prints {introspections}: how often it was asked about a token
import { createPrivateKey, createPublicKey, generateKeyPairSync } from "node:crypto";
import https from "node:https";
import { createInterface } from "node:readline";
import * as DPoP from "dpop";

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const next = async () => {
  const { value, done } = await lines.next();
  return done ? undefined : JSON.parse(value);
};
const say = (document) => process.stdout.write(`${JSON.stringify(document)}\n`);

// The provider warns, from its import on, of storage in memory, which is what a test wants.
console.warn = () => {};
console.info = () => {};
const { default: Provider } = await import("oidc-provider");

const { tls, clients, keys } = await next();
const ring = new Map();
const jwk = (kid) => {
  if (!ring.has(kid)) {
    const pair = generateKeyPairSync("ec", { namedCurve: "P-256" });
    ring.set(kid, { ...pair.privateKey.export({ format: "jwk" }), kid, alg: "ES256", use: "sig" });
  }
  return ring.get(kid);
};

// What is asked for at this resource is a signed token; at any other one it is opaque.
const SIGNED = "https://api.bank.example";
let life = 300;
let introspections = 0;
let handle;
const server = https.createServer(
  { key: tls.key, cert: tls.cert, requestCert: true, rejectUnauthorized: false },
  (request, response) => {
    introspections += request.url.startsWith("/token/introspection") ? 1 : 0;
    handle(request, response);
  },
);
await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
const issuer = `https://localhost:${server.address().port}`;

function provide(kids) {
  const provider = new Provider(issuer, {
    clients,
    jwks: { keys: kids.map(jwk) },
    scopes: ["accounts", "payments"],
    clientDefaults: { id_token_signed_response_alg: "ES256", introspection_signed_response_alg: "ES256" },
    enabledJWA: { clientAuthSigningAlgValues: ["ES256"], introspectionSigningAlgValues: ["ES256"] },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      revocation: { enabled: true },
      introspection: { enabled: true, allowedPolicy: (_ctx, client) => client.clientId.startsWith("gateway") },
      jwtIntrospection: { enabled: true },
      dPoP: { enabled: true },
      mTLS: {
        enabled: true,
        certificateBoundAccessTokens: true,
        getCertificate: (ctx) => {
          const { raw } = ctx.socket.getPeerCertificate();
          return raw && `-----BEGIN CERTIFICATE-----\n${raw.toString("base64")}\n-----END CERTIFICATE-----`;
        },
      },
      resourceIndicators: {
        enabled: true,
        defaultResource: (ctx) => ctx.oidc.params?.resource,
        getResourceServerInfo: (_ctx, resource) => ({
          scope: "accounts payments",
          audience: resource,
          accessTokenTTL: life,
          accessTokenFormat: resource === SIGNED ? "jwt" : "opaque",
          jwt: { sign: { alg: "ES256" } },
        }),
      },
    },
  });
  provider.on("server_error", (_ctx, error) => console.error(error));
  handle = provider.callback();
}

function post(path, { client, secret, cert, proof }, form) {
  const body = new URLSearchParams(form).toString();
  const headers = {
    "content-type": "application/x-www-form-urlencoded",
    "content-length": Buffer.byteLength(body),
    authorization: `Basic ${Buffer.from(`${client}:${secret}`).toString("base64")}`,
    ...(proof && { dpop: proof }),
  };
  return new Promise((resolve, reject) => {
    const options = { method: "POST", headers, ca: tls.authority, agent: false, ...cert };
    const request = https.request(`${issuer}${path}`, options, async (response) => {
      let text = "";
      for await (const part of response) text += part;
      resolve({ status: response.statusCode, text });
    });
    request.on("error", reject);
    request.end(body);
  });
}

async function prove(key, path) {
  const curve = { name: "ECDSA", namedCurve: "P-256" };
  const der = createPrivateKey(key).export({ format: "der", type: "pkcs8" });
  const privateKey = await crypto.subtle.importKey("pkcs8", der, curve, false, ["sign"]);
  const publicJwk = createPublicKey(key).export({ format: "jwk" });
  const publicKey = await crypto.subtle.importKey("jwk", publicJwk, curve, true, ["verify"]);
  return DPoP.generateProof({ privateKey, publicKey }, `${issuer}${path}`, "POST");
}

async function token({ resource, key, ttl, ...who }) {
  life = ttl ?? 300;
  const proof = key && (await prove(key, "/token"));
  const form = { grant_type: "client_credentials", scope: "accounts", resource };
  const { status, text } = await post("/token", { ...who, proof }, form);
  if (status !== 200) throw new Error(`${status} ${text}`);
  const { access_token, token_type } = JSON.parse(text);
  return { token: access_token, type: token_type };
}

provide(keys);
say({ port: server.address().port, issuer });
for (let command = await next(); command; command = await next()) {
  if (command.token) say(await token(command.token));
  else if (command.revoke) say(await post("/token/revocation", command.revoke, { token: command.revoke.token }));
  else if (command.rotate) say(provide(command.rotate) ?? {});
  else say({ introspections });
}
process.exit(0);
