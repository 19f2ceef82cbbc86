"""Signs a request by RFC 9421 with http-message-signatures: reads {key_id, algorithm, key, method, url, headers, covers}
from standard input, prints the headers of the signed request."""
import json
import sys

from http_message_signatures import HTTPMessageSigner, HTTPSignatureKeyResolver, algorithms

request = json.load(sys.stdin)
key = request["key"].encode()


class Message:
    method = request["method"]
    url = request["url"]
    headers = request["headers"]


class Keys(HTTPSignatureKeyResolver):
    def resolve_private_key(self, key_id):
        return key


named = {algorithm.algorithm_id: algorithm for algorithm in algorithms.signature_algorithms.values()}
signer = HTTPMessageSigner(signature_algorithm=named[request["algorithm"]], key_resolver=Keys())
signer.sign(Message, key_id=request["key_id"], covered_component_ids=request["covers"])
print(json.dumps(dict(Message.headers)))
