"""An authorization server in Envoy's protocol, built of grpcio and the message types its authors publish.

Prints its port on the first line of its output. Who a caller is follows from the header x-session:

    alice            allowed, as alice, with fields and metadata that tell what the server has seen
    nobody           allowed, without a name
    expired          401, with a challenge and a body of its own
    forbidden        403
    unauthenticated  status UNAUTHENTICATED without an HTTP answer
    teapot           denied with HTTP status 418
    broken           status INTERNAL
    abort            the call itself fails
    slow             allowed as alice after two seconds
    remember         allowed as alice, to be remembered for a minute
"""

import sys
import time
from concurrent import futures

import grpc
from envoy.config.core.v3 import base_pb2
from envoy.service.auth.v3 import external_auth_pb2, external_auth_pb2_grpc
from envoy.type.v3 import http_status_pb2
from google.rpc import code_pb2, status_pb2


def fields(pairs):
    return [
        base_pb2.HeaderValueOption(header=base_pb2.HeaderValue(key=name, value=value)) for name, value in pairs
    ]


def status(code):
    return status_pb2.Status(code=code)


def denied(code, http_code, headers=(), body=""):
    return external_auth_pb2.CheckResponse(
        status=status(code),
        denied_response=external_auth_pb2.DeniedHttpResponse(
            status=http_status_pb2.HttpStatus(code=http_code), headers=fields(headers), body=body
        ),
    )


class Authorization(external_auth_pb2_grpc.AuthorizationServicer):
    def __init__(self):
        self.calls = 0

    def Check(self, request, context):
        self.calls += 1
        attributes = request.attributes
        http = attributes.request.http
        session = http.headers.get("x-session", "")
        if session == "expired":
            return denied(
                code_pb2.UNAUTHENTICATED, 401, [("www-authenticate", 'Session realm="authz"')], "log in again\n"
            )
        if session == "forbidden":
            return denied(code_pb2.PERMISSION_DENIED, 403)
        if session == "unauthenticated":
            return external_auth_pb2.CheckResponse(status=status(code_pb2.UNAUTHENTICATED))
        if session == "teapot":
            return denied(code_pb2.PERMISSION_DENIED, 418)
        if session == "broken":
            return external_auth_pb2.CheckResponse(status=status(code_pb2.INTERNAL))
        if session == "abort":
            context.abort(grpc.StatusCode.UNAVAILABLE, "secret inner words")
        if session == "slow":
            time.sleep(2)
        response = external_auth_pb2.CheckResponse(status=status(code_pb2.OK))
        if session in ("alice", "slow", "remember"):
            response.ok_response.headers.extend(
                fields(
                    [
                        ("x-user", "alice"),
                        ("x-saw", f"{http.method} {http.path} {http.host} {http.scheme} {http.protocol}"),
                        ("x-saw-headers", ",".join(sorted(http.headers))),
                        ("x-saw-address", attributes.source.address.socket_address.address),
                        ("x-saw-body", http.body or http.raw_body.hex()),
                        ("x-saw-context", attributes.context_extensions.get("api", "")),
                        ("x-saw-sni", attributes.tls_session.sni),
                        ("x-saw-principal", attributes.source.principal),
                        ("x-saw-certificate", attributes.source.certificate[:40]),
                        ("x-calls", str(self.calls)),
                        ("x-not-asked-for", "stays here"),
                    ]
                )
            )
            response.dynamic_metadata.update({"team": {"name": "blue", "size": 7}, "scope": "orders:read"})
        if session == "remember":
            response.dynamic_metadata.update({"cache_max_age": 60})
        return response


def main():
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    external_auth_pb2_grpc.add_AuthorizationServicer_to_server(Authorization(), server)
    if len(sys.argv) == 3:
        with open(sys.argv[1], "rb") as chain, open(sys.argv[2], "rb") as key:
            credentials = grpc.ssl_server_credentials([(key.read(), chain.read())])
        port = server.add_secure_port("127.0.0.1:0", credentials)
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
