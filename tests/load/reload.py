#!/usr/bin/env python3
"""What a reload costs: time to take up other policies, and latency of requests meanwhile; and what clients in the store cost.

    cargo build --release -p portcullis --bins --examples && python3 tests/load/reload.py [--apis 10000] [--clients 100000]

First as many APIs as told, one of which is asked at a fixed rate by 8 connections while another one changes every two seconds.
Then as many clients as told are registered over the admin API, and requests with a key of one of them are compared with
those of a gateway that has ten. Only ratios mean something: gateway, generator and upstream share the machine.
"""
import argparse
import http.client
import json
import pathlib
import signal
import socket
import subprocess
import tempfile
import threading
import time

from shared import GATEWAY, LOAD, cpu_seconds, free_port, wait_for

TOKEN = "EXAMPLE-only-for-this-measurement-0123456789"
API = """api: api-{number}
match: {{ host: "*", path: /api-{number}/* }}
upstream: echo
authenticate: {{ api_key: {{ header: x-api-key }} }}
allow:
  - {{ name: read, methods: [GET], paths: ["/*"], when: client.attributes.tier != "{tier}" }}
limits: [ {{ per: identity, rate: 1000000 per second, burst: 1000000 }} ]
"""


class Bench:
    """A gateway with so many APIs."""

    def __init__(self, folder, apis, upstream):
        self.folder, self.port, self.admin = pathlib.Path(folder) / "policies", free_port(), free_port()
        for name in ["apis", "clients", "secrets", "data"]:
            (self.folder / name).mkdir(parents=True)
        (self.folder / "secrets/pepper").write_text("pepper-pepper-pepper-pepper-pepper-pepper")
        (self.folder / "secrets/token").write_text(TOKEN)
        (self.folder / "gateway.yaml").write_text(
            f"version: 1\nlisten: {{ plain: {{ address: 127.0.0.1:{self.port} }} }}\n"
            f"upstreams: {{ echo: {{ urls: [\"http://127.0.0.1:{upstream}\"] }} }}\n"
            "api_keys: { pepper: { file: secrets/pepper } }\nstore: { path: data/portcullis.redb }\n"
            f"admin: {{ address: 127.0.0.1:{self.admin}, token: {{ file: secrets/token }} }}\n"
            "access_log: false\nworkers: 1\nreload: { watch: false }\n"
        )
        for number in range(apis):
            self.write(number, "none")
        self.start()

    def start(self):
        begun = time.monotonic()
        command = [GATEWAY, "run", "--policies", self.folder]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(self.port)
        self.started = time.monotonic() - begun

    def write(self, number, tier):
        (self.folder / f"apis/api-{number}.yaml").write_text(API.format(number=number, tier=tier))

    def call(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=120)
        headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        answer = connection.getresponse()
        said = json.loads(answer.read() or b"null")
        if answer.status >= 300:
            raise SystemExit(f"{method} {path}: {answer.status} {said}")
        return said

    def key(self, client):
        return self.call("POST", f"/v1/clients/{client}/keys", {})["key"]

    def memory(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS:")).split()[1]) // 1024

    def end(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def latencies(port, key, seconds, gap):
    """Eight connections, each asking every so often: the sorted latencies in milliseconds."""
    found = [[] for _ in range(8)]

    def ask(into):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        request = f"GET /api-0/x HTTP/1.1\r\nhost: bench\r\nx-api-key: {key}\r\n\r\n".encode()
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            begun = time.monotonic()
            connection.sendall(request)
            answer = connection.recv(65536)
            if not answer.startswith(b"HTTP/1.1 200"):
                raise SystemExit(answer[:200])
            into.append((time.monotonic() - begun) * 1000)
            time.sleep(gap)

    threads = [threading.Thread(target=ask, args=(into,)) for into in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(value for into in found for value in into)


def shown(sorted_values):
    at = lambda part: sorted_values[min(int(len(sorted_values) * part), len(sorted_values) - 1)]
    return f"{at(0.5):.2f} / {at(0.99):.2f} / {at(0.999):.2f} / {sorted_values[-1]:.1f}"


def reloads(apis, upstream):
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(folder, apis, upstream)
        try:
            bench.call("POST", "/v1/clients", {"name": "acme", "attributes": {"tier": "gold"}})
            key, took, stop = bench.key("acme"), [], threading.Event()
            quiet = latencies(bench.port, key, 12, 0.01)

            def change():
                number = 0
                while not stop.is_set():
                    number += 1
                    bench.write(1, f"tier-{number}")
                    took.append(bench.call("POST", "/v1/reload")["took_ms"])
                    stop.wait(2)

            changing = threading.Thread(target=change)
            changing.start()
            busy = latencies(bench.port, key, 20, 0.01)
            stop.set()
            changing.join()
            print(f"\n{apis} APIs: started in {bench.started:.2f} s, {bench.memory()} MiB after {len(took)} reloads")
            print(f"reload: {min(took)} to {max(took)} ms from the first file to the last worker")
            print("| | latency in ms: 50 % / 99 % / 99.9 % / longest |\n| --- | --- |")
            print(f"| no reload | {shown(quiet)} |\n| a reload every two seconds and a bit | {shown(busy)} |")
        finally:
            bench.end()


def clients(counts, upstream):
    with tempfile.TemporaryDirectory() as few, tempfile.TemporaryDirectory() as many:
        benches = [Bench(folder, 1, upstream) for folder in (few, many)]
        try:
            rows, keys = [], []
            for bench, count in zip(benches, counts):
                begun = time.monotonic()
                for start in range(0, count, 1000):
                    names = range(start, min(start + 1000, count))
                    bench.call("POST", "/v1/clients", [{"name": f"client-{n}", "attributes": {"tier": "gold"}} for n in names])
                registering = time.monotonic() - begun
                begun = time.monotonic()
                bench.call("PATCH", f"/v1/clients/client-{count - 1}", {"attributes": {"tier": "silver"}})
                rows.append((registering, time.monotonic() - begun))
                keys.append(bench.key(f"client-{count - 1}"))
                # What registering leaves to be tidied up is no part of a request.
                bench.end()
                bench.start()
            time.sleep(3)
            used = [[] for _ in benches]
            for _ in range(7):
                for bench, key, into in zip(benches, keys, used):
                    command = [LOAD, "requests", f"http://127.0.0.1:{bench.port}/api-0/x", "--header", f"x-api-key: {key}", "--connections", "32"]
                    before = cpu_seconds(bench.process.pid)
                    said = json.loads(subprocess.run([*command, "--seconds", "2"], check=True, capture_output=True, text=True).stdout)
                    if set(said["statuses"]) != {"200"}:
                        raise SystemExit(said)
                    into.append((cpu_seconds(bench.process.pid) - before) * 1e6 / said["requests"])
            print("\n| clients in the store | gateway CPU in µs a request | registered in | one changed in | memory |\n| --- | --- | --- | --- | --- |")
            for bench, count, (registering, one), found in zip(benches, counts, rows, used):
                print(f"| {count:,} | {sorted(found)[3]:.1f} | {registering:.1f} s | {one:.2f} s | {bench.memory()} MiB |")
        finally:
            for bench in benches:
                bench.end()


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--apis", type=int, default=10_000)
    arguments.add_argument("--clients", type=int, default=100_000)
    given = arguments.parse_args()
    upstream = free_port()
    server = subprocess.Popen([LOAD, "upstream", str(upstream)], stdout=subprocess.DEVNULL)
    try:
        wait_for(upstream)
        reloads(given.apis, upstream)
        clients([10, given.clients], upstream)
    finally:
        server.kill()


if __name__ == "__main__":
    main()
