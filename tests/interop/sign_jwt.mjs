// Signs a JWT with `jose`: reads {key, header, claims} from standard input, prints the token.
import { readFileSync } from "node:fs";
import { SignJWT, importPKCS8 } from "jose";

const { key, header, claims } = JSON.parse(readFileSync(0, "utf8"));
console.log(await new SignJWT(claims).setProtectedHeader(header).sign(await importPKCS8(key, header.alg)));
