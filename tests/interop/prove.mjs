// Makes a DPoP proof with `dpop` or with `jose`: reads {library, key, token, method, url, nonce} from standard input,
// prints {thumbprint, proof}. The key is an ECDSA key on P-256 as PKCS#8 PEM.
import { createHash, createPrivateKey, createPublicKey, randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import * as DPoP from "dpop";
import { SignJWT, calculateJwkThumbprint, importPKCS8 } from "jose";

const { library, key, token, method, url, nonce } = JSON.parse(readFileSync(0, "utf8"));
const jwk = createPublicKey(key).export({ format: "jwk" });

async function withDpop() {
  const curve = { name: "ECDSA", namedCurve: "P-256" };
  const der = createPrivateKey(key).export({ format: "der", type: "pkcs8" });
  const privateKey = await crypto.subtle.importKey("pkcs8", der, curve, false, ["sign"]);
  const publicKey = await crypto.subtle.importKey("jwk", jwk, curve, true, ["verify"]);
  const proof = await DPoP.generateProof({ privateKey, publicKey }, url, method, nonce ?? undefined, token);
  return { thumbprint: await DPoP.calculateThumbprint(publicKey), proof };
}

async function withJose() {
  const claims = { jti: randomUUID(), htm: method, htu: url, ath: createHash("sha256").update(token).digest("base64url") };
  const proof = await new SignJWT(nonce ? { ...claims, nonce } : claims)
    .setProtectedHeader({ alg: "ES256", typ: "dpop+jwt", jwk })
    .setIssuedAt()
    .sign(await importPKCS8(key, "ES256"));
  return { thumbprint: await calculateJwkThumbprint(jwk), proof };
}

console.log(JSON.stringify(await (library === "dpop" ? withDpop() : withJose())));
