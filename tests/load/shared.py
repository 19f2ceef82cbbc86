#!/usr/bin/env python3
"""Limits counted alone, strictly in Redis, and in leased blocks, side by side: requests a second, latency, CPU.

    cargo build --release -p portcullis --bins --examples && python3 tests/load/shared.py [--rounds 3] [--seconds 3]

One API key, one quota that is never used up, 32 connections. Needs redis-server. Only ratios mean something: the gateway, the
generator, the upstream and Redis share the machine.
"""
import argparse
import json
import os
import pathlib
import re
import signal
import socket
import statistics
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
GATEWAY, LOAD = TARGET / "portcullis", TARGET / "examples" / "load"
QUOTA = "  - { per: identity, quota: 1000000000 per day%s }\n"
KINDS = {
    "no limit": ("store: { path: data/portcullis.redb }", ""),
    "alone": ("store: { path: data/portcullis.redb }", "limits:\n" + QUOTA % ""),
    "redis, strict": ("store: { redis: { url: { file: secrets/redis }, timeout: 2s } }", "limits:\n" + QUOTA % ""),
    "redis, lease 10": ("store: { redis: { url: { file: secrets/redis }, timeout: 2s } }", "limits:\n" + QUOTA % ", lease: 10"),
    "redis, lease 100": ("store: { redis: { url: { file: secrets/redis }, timeout: 2s } }", "limits:\n" + QUOTA % ", lease: 100"),
}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port):
    for _ in range(500):
        try:
            return socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.02)
    raise SystemExit(f"nobody listens on {port}")


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def policies(folder, store, limits, ports, redis):
    port, admin, upstream = ports
    for name in ["apis", "clients", "secrets", "data"]:
        (folder / name).mkdir(parents=True)
    (folder / "secrets/pepper").write_text("pepper-pepper-pepper-pepper-pepper-pepper")
    (folder / "secrets/redis").write_text(f"redis://127.0.0.1:{redis}")
    (folder / "gateway.yaml").write_text(
        f"version: 1\nlisten: {{ plain: {{ address: 127.0.0.1:{port} }} }}\n"
        f"upstreams: {{ echo: {{ urls: [\"http://127.0.0.1:{upstream}\"] }} }}\n"
        f"api_keys: {{ pepper: {{ file: secrets/pepper }} }}\n{store}\nadmin: {{ address: 127.0.0.1:{admin} }}\n"
        "access_log: false\nworkers: 1\n"
    )
    (folder / "apis/load.yaml").write_text(
        "api: load\nmatch: { host: \"*\", path: /* }\nupstream: echo\nauthenticate: { api_key: { header: x-api-key } }\n"
        "allow: [ { name: anything, paths: [\"/*\"] } ]\n" + limits
    )
    (folder / "clients/load.yaml").write_text("clients:\n  acme: {}\n")
    command = [GATEWAY, "key", "create", "--declare", "--policies", folder, "--client", "acme", "--format", "json"]
    made = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    stored = re.search(r"pk1:[\w-]+", made).group()
    (folder / "clients/load.yaml").write_text(f"clients:\n  acme: {{ credentials: [ {{ api_key: {{ hash: \"{stored}\" }} }} ] }}\n")
    return json.loads(made)["key"]


def measure(kind, seconds, upstream, redis):
    store, limits = KINDS[kind]
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder) / "policies"
        port = free_port()
        key = policies(folder, store, limits, (port, free_port(), upstream), redis)
        gateway = subprocess.Popen([GATEWAY, "run", "--policies", folder], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_for(port)
            command = [LOAD, "requests", f"http://127.0.0.1:{port}/x", "--header", f"x-api-key: {key}", "--connections", "32"]
            subprocess.run([*command, "--seconds", "1"], check=True, capture_output=True)
            before = cpu_seconds(gateway.pid)
            said = json.loads(subprocess.run([*command, "--seconds", str(seconds)], check=True, capture_output=True, text=True).stdout)
            used = cpu_seconds(gateway.pid) - before
        finally:
            gateway.send_signal(signal.SIGKILL)
            gateway.wait()
    if set(said["statuses"]) != {"200"}:
        raise SystemExit(f"{kind}: {said}")
    return said["requests"] / seconds, said["latency_ms"], used * 1e6 / said["requests"]


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--seconds", type=int, default=3)
    given = arguments.parse_args()
    upstream, redis = free_port(), free_port()
    servers = [
        subprocess.Popen([LOAD, "upstream", str(upstream)], stdout=subprocess.DEVNULL),
        subprocess.Popen(["redis-server", "--port", str(redis), "--bind", "127.0.0.1", "--save", ""], stdout=subprocess.DEVNULL),
    ]
    try:
        wait_for(upstream)
        wait_for(redis)
        found = {kind: [] for kind in KINDS}
        for _ in range(given.rounds):
            for kind in KINDS:
                found[kind].append(measure(kind, given.seconds, upstream, redis))
    finally:
        for server in servers:
            server.kill()
    print("| limit | requests a second | of those without | latency in ms, 50 % and 99 % | gateway CPU in µs each |\n| --- | --- | --- | --- | --- |")
    whole = statistics.median(rate for rate, _, _ in found["no limit"])
    for kind, rounds in found.items():
        rate = statistics.median(rate for rate, _, _ in rounds)
        half, late = (statistics.median(latency[name] for _, latency, _ in rounds) for name in ("p50", "p99"))
        cpu = statistics.median(cpu for _, _, cpu in rounds)
        print(f"| {kind} | {rate:,.0f} | {rate / whole:.2f} | {half:.2f}, {late:.2f} | {cpu:.0f} |")


if __name__ == "__main__":
    main()
