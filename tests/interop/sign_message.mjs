// Signs a request with `http-message-signatures`, by RFC 9421 or (`cavage`) in the older form: reads {key_id, algorithm, key,
// method, url, headers, covers, cavage} from standard input, prints the headers of the signed request.
import { readFileSync } from "node:fs";
import { cavage, createSigner, httpbis } from "http-message-signatures";

const request = JSON.parse(readFileSync(0, "utf8"));
const { method, url, headers, covers } = request;
const key = createSigner(request.key, request.algorithm, request.key_id);
const form = request.cavage ? cavage : httpbis;
const signed = await form.signMessage({ key, fields: covers }, { method, url, headers });
console.log(JSON.stringify(signed.headers));
