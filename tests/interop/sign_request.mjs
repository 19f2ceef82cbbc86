// Signs a request in the older form with `http-signature`: reads {key_id, algorithm, key, method, path, headers, covers} from
// standard input, prints the headers of the signed request.
import { readFileSync } from "node:fs";
import httpSignature from "http-signature";

const { key_id: keyId, algorithm, key, method, path, headers, covers } = JSON.parse(readFileSync(0, "utf8"));
const fields = new Map(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]));
const request = {
  method,
  path,
  getHeader: (name) => fields.get(name.toLowerCase()),
  setHeader: (name, value) => fields.set(name.toLowerCase(), value),
};
httpSignature.sign(request, { key, keyId, algorithm, headers: covers });
console.log(JSON.stringify(Object.fromEntries(fields)));
