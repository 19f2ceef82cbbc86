#!/usr/bin/env python3
"""Measures gateways side by side on loopback, interleaved in one run. Started by ./tests/load/run; standard library only.

The main figure is processor time of the gateway's processes per 1,000 answered requests (user and system, /proc): it does
not depend on who else had the cores. It still drifts with the machine, so only ratios inside one run mean something.
"""

import argparse
import json
import os
import pathlib
import platform
import re
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import time

import gateways
import material

HERE = pathlib.Path(__file__).parent.resolve()
TICKS = os.sysconf("SC_CLK_TCK")
HEADERS = ("User-Agent: load/1.0", "Accept: application/json", "Accept-Encoding: gzip, deflate",
           "X-Request-Id: 7f3c1c1e-1f0e-4d0e-9a55-0a4d0f3f9c11")


# More requests a second than a gateway answers that checks a proof with each.
PROOFS = 100_000


class Scenario:
    """What is sent, and which share of which peers' processor time is the goal."""

    def __init__(self, what, conns=64, headers=None, first=False, path="/", upload=False, tls=False, close=False,
                 rate=None, like=None, goal=None, peers=(), bad=None, floor=None, only=None, signed=None):
        self.what, self.conns, self.headers, self.first, self.path = what, conns, headers, first, path
        self.upload, self.tls, self.close, self.rate, self.like = upload, tls, close, rate, like
        self.goal, self.peers, self.bad = goal, peers, bad
        # The cryptography of one request alone, by its name in `floor`; and the gateways that have such a thing.
        self.floor, self.only = floor, only
        # The kind of proof each request carries. Proofs are good for minutes, so they are made for each run.
        self.signed = signed


SCENARIOS = {
    "plain": Scenario("plain proxying, 100-byte answers", goal=1.0, peers=("nginx",)),
    "jwt": Scenario("JWT RS256, one token", headers="tokens.txt", first=True, bad="token",
                    goal=0.35, peers=("haproxy", "nginx")),
    "jwt-many": Scenario("JWT RS256, 10,000 tokens", headers="tokens.txt", bad="token",
                         goal=0.35, peers=("haproxy", "nginx")),
    "api-key": Scenario("API key among 100,000, rate limit by it", headers="keys.txt", bad="key",
                        goal=0.85, peers=("nginx",)),
    "mtls": Scenario("mutual TLS, keep-alive; ours with a bound token", conns=32, headers="bound.txt", tls=True,
                     goal=0.8, peers=("nginx",)),
    "handshake": Scenario("full mutual TLS handshake for each request", conns=32, tls=True, close=True,
                          goal=0.5, peers=("nginx",)),
    "download": Scenario("1 MiB answers", conns=16, path="/big"),
    "upload": Scenario("1 MiB request bodies", conns=16, upload=True),
    "latency": Scenario("plain proxying at 5,000 requests a second", conns=32, rate=5_000, like="plain",
                        peers=("nginx",)),
    "latency-jwt": Scenario("JWT RS256 at 5,000 requests a second", conns=32, rate=5_000, like="jwt",
                            headers="tokens.txt", first=True, bad="token", peers=("nginx",)),
}

# What each way of showing who is calling costs. `-new`: nothing about the credential is remembered.
OURS = ("portcullis",)
for algorithm in ("RS256", "PS256", "ES256", "EdDSA"):
    known, new = f"auth-{algorithm.lower()}", f"auth-{algorithm.lower()}-new"
    tokens = f"{algorithm.lower()}.txt"
    SCENARIOS[known] = Scenario(f"{algorithm} token, known", headers=tokens, first=True, bad="token", only=OURS)
    SCENARIOS[new] = Scenario(f"{algorithm} token, seen for the first time", headers=tokens, bad="token", only=OURS,
                              floor=algorithm)
SCENARIOS |= {
    "auth-bound": Scenario("known token bound to the certificate of a connection kept open", conns=32, headers="bound.txt",
                           tls=True, like="mtls", only=OURS),
    "auth-certificate": Scenario("certificate of a connection kept open", conns=32, tls=True, like="handshake", only=OURS),
    "auth-api-key": Scenario("API key among 100,000", headers="keys.txt", bad="key", like="api-key", floor="HS256", only=OURS),
    "auth-basic": Scenario("name and password, remembered", headers="basic.txt", first=True, only=OURS),
    "auth-hmac": Scenario("hmac-sha256 of target, host, date and an id, each taken once", headers="hmac.txt", only=OURS,
                          floor="HS256", signed=("hmac", "proof-secret")),
    "auth-signature": Scenario("RFC 9421 by hmac-sha256 over method and target, each taken once", headers="signature.txt",
                               only=OURS, floor="HS256", signed=("signature", "proof-secret")),
    "auth-dpop": Scenario("known RS256 token with an ES256 proof, each taken once", headers="dpop.txt", only=OURS,
                          floor="ES256", signed=("dpop", "issuer.key", "claims.json")),
    "auth-token": Scenario("opaque token, answer of its provider remembered", headers="opaque.txt", first=True, only=OURS),
    "auth-token-new": Scenario("opaque token, its provider asked each time", headers="opaque.txt", only=OURS),
    "auth-external": Scenario("external service over HTTP, answer remembered", headers="keys.txt", first=True, only=OURS),
    "auth-external-new": Scenario("external service over HTTP, asked each time", headers="keys.txt", only=OURS),
}


def tree(root):
    """A process and all below it."""
    children = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            stat = pathlib.Path(f"/proc/{name}/stat").read_text()
        except OSError:
            continue
        children.setdefault(int(stat[stat.rindex(")") + 2:].split()[1]), []).append(int(name))
    found, todo = [], [root]
    while todo:
        found.append(todo.pop())
        todo += children.get(found[-1], [])
    return found


def processor_seconds(pids):
    """User and system time of these processes."""
    user = system = 0
    for pid in pids:
        try:
            stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            continue
        fields = stat[stat.rindex(")") + 2:].split()
        user, system = user + int(fields[11]), system + int(fields[12])
    return user / TICKS, system / TICKS


class Process:
    """Something started by this run, and stopped by it."""

    def __init__(self, name, command, core, folder, environment=None):
        self.log = folder / f"{name}.log"
        pin = ["taskset", "-c", core] if core else []
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(pin + command, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                            env={**os.environ, **(environment or {})}, start_new_session=True)

    def pids(self):
        return tree(self.process.pid)

    def stop(self):
        pids = self.pids()
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in pids:
                try:
                    os.kill(pid, number)
                except OSError:
                    pass
            try:
                self.process.wait(2)
                return
            except subprocess.TimeoutExpired:
                continue

    def wait_for(self, port, seconds=60):
        end = time.time() + seconds
        while time.time() < end and self.process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), 0.5).close()
                return True
            except OSError:
                time.sleep(0.1)
        return False


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Bench:
    """The run: where things lie, and who is pinned where."""

    def __init__(self, arguments):
        self.arguments = arguments
        self.cache = pathlib.Path(arguments.cache).resolve()
        self.data, self.folder = self.cache / "data", self.cache / "run"
        (self.folder / "tmp").mkdir(parents=True, exist_ok=True)
        self.generator = arguments.generator
        pinned = arguments.workers == 1 and (os.cpu_count() or 1) > 1
        self.core, self.other_core = ("0", "1") if pinned else (None, None)
        self.binaries = {"portcullis": arguments.portcullis, "envoy": arguments.envoy}
        self.records, self.floors = [], {}
        # How many lines of a list a gateway has seen: the next load goes on behind them.
        self.sent = {}

    def measure_floors(self):
        """Microseconds for one check of each kind, with nothing around it."""
        pin = ["taskset", "-c", self.core] if self.core else []
        self.floors = json.loads(subprocess.run(pin + [self.arguments.floor], capture_output=True, text=True, check=True).stdout)

    def prove(self, scenario, count):
        """Makes proofs nobody has used."""
        kind, *files = scenario.signed
        material.proofs(self.data, self.generator, kind, files, scenario.headers, count)

    def load(self, scenario, port):
        """Runs the load once: how many answers came, how many were not 200, and latencies if they are asked for."""
        if scenario.signed:
            self.prove(scenario, PROOFS * self.arguments.seconds)
        pin = ["taskset", "-c", self.other_core] if self.other_core else []
        if scenario.tls or scenario.rate:
            return self.own_load(scenario, port, pin)
        command = pin + ["wrk", "-t1", "-c", str(scenario.conns), "-d", f"{self.arguments.seconds}s"]
        for header in HEADERS:
            command += ["-H", header]
        environment = dict(os.environ)
        if scenario.headers and scenario.first:
            command += ["-H", self.first_header(scenario)]
        elif scenario.headers:
            environment["LOAD_HEADERS"] = str(self.data / scenario.headers)
            if not scenario.signed:
                environment["LOAD_FROM"] = str(self.sent.get(port, 0))
        if scenario.upload:
            environment["LOAD_BODY"] = "1"
        if "LOAD_HEADERS" in environment or scenario.upload:
            command += ["-s", str(HERE / "list.lua")]
        said = subprocess.run(command + [f"http://127.0.0.1:{port}{scenario.path}"], capture_output=True, text=True,
                              env=environment, timeout=self.arguments.seconds + 60, check=True).stdout
        count = int(re.search(r"(\d+) requests in", said).group(1))
        self.sent[port] = self.sent.get(port, 0) + count
        bad = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
        errors = re.search(r"Socket errors: (.*)", said)
        return {"count": count, "bad": int(bad.group(1)) if bad else 0, "errors": errors.group(1) if errors else ""}

    def own_load(self, scenario, port, pin):
        scheme = "https" if scenario.tls else "http"
        command = pin + [self.generator, "requests", f"{scheme}://localhost:{port}{scenario.path}",
                         "--seconds", str(self.arguments.seconds), "--connections", str(scenario.conns)]
        if scenario.tls:
            for option, name in (("ca", "ca.crt"), ("cert", "client.crt"), ("key", "client.key")):
                command += [f"--{option}", str(self.data / name)]
        if scenario.close:
            command += ["--close"]
        if scenario.rate:
            command += ["--rate", str(scenario.rate)]
        if scenario.headers:
            command += ["--header", self.first_header(scenario)]
        said = json.loads(subprocess.run(command, capture_output=True, text=True, check=True,
                                         timeout=self.arguments.seconds + 60).stdout)
        bad = said["requests"] - said["statuses"].get("200", 0)
        return {"count": said["requests"], "bad": bad, "latency": said["latency_ms"],
                "errors": said["last_error"] if said["errors"] else ""}

    def first_header(self, scenario):
        with open(self.data / scenario.headers, encoding="ascii") as file:
            return file.readline().strip()

    def status(self, scenario, port, header=None, certificate=True):
        """The status of one request of our own making; 0 if the handshake or the connection fails."""
        try:
            connection = socket.create_connection(("127.0.0.1", port), 5)
            if scenario.tls:
                context = ssl.create_default_context(cafile=str(self.data / "ca.crt"))
                if certificate:
                    context.load_cert_chain(self.data / "client.crt", self.data / "client.key")
                connection = context.wrap_socket(connection, server_hostname="localhost")
            fields = header.split("\t") if header else []
            if not any(field.startswith("Host:") for field in fields):
                fields.insert(0, "Host: localhost")
            lines = ["GET / HTTP/1.1", "Connection: close", *fields]
            connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
            said = b""
            while len(said) < 12 and (more := connection.recv(4096)):
                said += more
            return int(said.split(b" ")[1]) if said.startswith(b"HTTP/1.1 ") else 0
        except (OSError, ValueError):
            return 0

    def check(self, scenario, port):
        """A gateway that lets the wrong ones in is not measured."""
        good = self.first_header(scenario) if scenario.headers else None
        if self.status(scenario, port, good) != 200:
            return "refuses a good request"
        if scenario.bad:
            wrong = good[:-12] + ("A" if good[-12] != "A" else "B") + good[-11:] if scenario.bad == "token" else "X-Api-Key: x"
            if self.status(scenario, port) not in (401, 403) or self.status(scenario, port, wrong) not in (401, 403):
                return "lets a wrong credential in"
        if scenario.tls and self.status(scenario, port, good, certificate=False) == 200:
            return "lets somebody in without a certificate"
        return None

    def start(self, names, scenario_name, upstream):
        scenario, living = SCENARIOS[scenario_name], {}
        for name in names:
            setup = gateways.Setup(scenario.like or scenario_name, free_port(), upstream, self.arguments.workers,
                                   self.data, self.folder)
            command = gateways.GATEWAYS[name](setup, self.binaries.get(name))
            if command is None:
                continue
            process = Process(f"{name}-{scenario_name}", command, self.core, self.folder)
            fault = None if process.wait_for(setup.port) else "does not start"
            if scenario.signed and not fault:
                # A gateway that has just started cannot know which older proofs were used before.
                time.sleep(2)
                self.prove(scenario, 100)
            fault = fault or self.check(scenario, setup.port)
            if fault:
                process.stop()
                say(f"{name} {fault} (see {process.log}): not measured")
            else:
                living[name] = (process, setup.port)
        return living

    def measure(self, scenario_name):
        scenario = SCENARIOS[scenario_name]
        say(f"{scenario_name}: {scenario.what}")
        port, living = free_port(), {}
        upstream = Process("upstream", [self.generator, "upstream", str(port)], self.other_core, self.folder)
        try:
            assert upstream.wait_for(port), f"the upstream does not start, see {upstream.log}"
            names = [name for name in self.arguments.gateways if not scenario.only or name in scenario.only]
            living = self.start(names, scenario_name, port)
            for _, gateway_port in living.values():
                self.load(scenario, gateway_port)
            for turn in range(self.arguments.rounds):
                order = list(living.items())
                for name, (process, gateway_port) in reversed(order) if turn % 2 else order:
                    self.one_round(scenario_name, name, process, gateway_port)
        finally:
            for process, _ in living.values():
                process.stop()
            upstream.stop()

    def one_round(self, scenario_name, name, process, port):
        pids = process.pids()
        before, start = processor_seconds(pids), time.time()
        said = self.load(SCENARIOS[scenario_name], port)
        seconds, after = time.time() - start, processor_seconds(pids)
        thousands = max(said["count"], 1) / 1000
        used = [(late - early) * 1000 / thousands for early, late in zip(before, after)]
        record = {"scenario": scenario_name, "gateway": name, "cpu": sum(used), "user": used[0], "system": used[1],
                  "rate": said["count"] / seconds, "busy": sum(used) * thousands / 1000 / seconds, **said}
        self.records.append(record)
        latency = f" p99 {said['latency']['p99']:.2f} ms" if "latency" in said else ""
        say(f"  {name:11s} {record['rate']:9.0f}/s  {record['cpu']:8.2f} ms/1,000  bad {said['bad']} {said['errors']}{latency}")


def say(text):
    print(text, file=sys.stderr, flush=True)


def median_of(records, key):
    return statistics.median(key(record) for record in records)


def tables(records, floors, arguments):
    """The results as Markdown."""
    lines = [f"Measured {time.strftime('%Y-%m-%d')} on {machine()}; {arguments.workers} worker(s), "
             f"{arguments.rounds} rounds of {arguments.seconds} s, medians (least to most). {versions(arguments)}", ""]
    for scenario_name, scenario in SCENARIOS.items():
        chosen = [record for record in records if record["scenario"] == scenario_name]
        if not chosen:
            continue
        by_gateway = {}
        for record in chosen:
            by_gateway.setdefault(record["gateway"], []).append(record)
        lines += [f"**{scenario_name}**: {scenario.what}", ""]
        lines += ["| gateway | CPU ms per 1,000 | user | system | requests/s | CPU busy | p50 ms | p99 ms | not 200 |",
                  "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
        for name, rounds in sorted(by_gateway.items(), key=lambda item: median_of(item[1], lambda r: r["cpu"])):
            cpu = [record["cpu"] for record in rounds]
            p50, p99 = (f"{median_of(rounds, lambda r, at=at: r['latency'][at]):.2f}" if "latency" in rounds[0] else "-"
                        for at in ("p50", "p99"))
            figures = [f"{median_of(rounds, lambda r, key=key: r[key]):.1f}" for key in ("user", "system")]
            lines.append(f"| {name} | {statistics.median(cpu):.1f} ({min(cpu):.1f}-{max(cpu):.1f}) | {' | '.join(figures)}"
                         f" | {median_of(rounds, lambda r: r['rate']):.0f} | {median_of(rounds, lambda r: r['busy']):.2f}"
                         f" | {p50} | {p99} | {sum(record['bad'] for record in rounds)} |")
        lines += ["", *goal_line(scenario, by_gateway), ""]
    lines += authenticators(records, floors)
    return "\n".join(lines)


def authenticators(records, floors):
    """One table of all ways of showing who is calling, beside the cryptography that nobody can do without."""
    cost = {}
    for record in records:
        if record["gateway"] == "portcullis":
            cost.setdefault(record["scenario"], []).append(record)
    chosen = [name for name in SCENARIOS if name.startswith("auth-") and name in cost]
    if not chosen:
        return []
    lines = ["**Authenticators**: processor time of 1,000 requests, in ms", "",
             "| scenario | what | in all | over plain | cryptography alone |", "| --- | --- | --- | --- | --- |"]
    plain = median_of(cost["plain"], lambda r: r["cpu"]) if "plain" in cost else None
    for name in chosen:
        scenario, all_of_it = SCENARIOS[name], median_of(cost[name], lambda r: r["cpu"])
        # Without TLS only: what TLS costs is no part of it.
        over = f"{all_of_it - plain:.1f}" if plain is not None and not scenario.tls else "-"
        # Microseconds for one are milliseconds for a thousand.
        alone = f"{floors[scenario.floor]:.1f} ({scenario.floor})" if scenario.floor in floors else "-"
        lines.append(f"| {name} | {scenario.what} | {all_of_it:.1f} | {over} | {alone} |")
    return [*lines, ""]


def goal_line(scenario, by_gateway):
    peers = [name for name in scenario.peers if name in by_gateway]
    if "portcullis" not in by_gateway or not peers:
        return []
    if scenario.rate:
        ours, theirs = (median_of(by_gateway[name], lambda r: r["latency"]["p99"]) for name in ("portcullis", peers[0]))
        return [f"Goal: p99 no worse than {peers[0]}'s: {ours:.2f} against {theirs:.2f} ms, {verdict(ours <= theirs)}."]
    if scenario.goal is None:
        return []
    ours = median_of(by_gateway["portcullis"], lambda r: r["cpu"])
    best = min(peers, key=lambda name: median_of(by_gateway[name], lambda r: r["cpu"]))
    share = ours / median_of(by_gateway[best], lambda r: r["cpu"])
    line = f"Goal: at most {scenario.goal:.2f} of {best}: {share:.2f}, {verdict(share <= scenario.goal)}"
    if scenario.close and "envoy" in by_gateway:
        other = ours / median_of(by_gateway["envoy"], lambda r: r["cpu"])
        line += f"; or at most 0.60 of envoy: {other:.2f}, {verdict(other <= 0.6)}"
    return [line + "."]


def verdict(reached):
    return "reached" if reached else "**missed**"


def machine():
    names = re.findall(r"^model name\s*: (.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.M) or ["?"]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} x {names[0]}, {memory:.0f} GiB, Linux {platform.release()}"


def versions(arguments):
    asked = {"nginx": ["nginx", "-v"], "haproxy": ["haproxy", "-v"], "envoy": [arguments.envoy, "--version"]}
    found = []
    for name in arguments.gateways:
        if name in asked:
            said = subprocess.run(asked[name], capture_output=True, text=True, check=False)
            number = re.search(r"\d+\.\d+\.\d+", said.stdout + said.stderr)
            found.append(f"{name} {number.group(0) if number else '?'}")
    return ", ".join(found) + "."


def main():
    parser = argparse.ArgumentParser(prog="tests/load/run", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", default=",".join(SCENARIOS), type=lambda text: text.split(","),
                        help=f"some of {', '.join(SCENARIOS)}; `authenticators` for plain and all that begin with auth-")
    parser.add_argument("--gateways", default="portcullis,nginx,haproxy", type=lambda text: text.split(","),
                        help=f"some of {', '.join(gateways.GATEWAYS)}; envoy needs ENVOY=… or WITH_ENVOY=1")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--workers", type=int, default=1, help="with one, gateways are pinned to core 0, the load to core 1")
    parser.add_argument("--write", metavar="FILE", help="write the Markdown table there, too")
    parser.add_argument("--json", metavar="FILE", help="write every round there, one JSON object a line")
    for hidden in ("cache", "portcullis", "generator", "floor", "envoy"):
        parser.add_argument(f"--{hidden}", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if "authenticators" in arguments.scenarios:
        arguments.scenarios.remove("authenticators")
        arguments.scenarios += ["plain", *(name for name in SCENARIOS if name.startswith("auth-"))]
    for name in arguments.scenarios:
        if name not in SCENARIOS:
            parser.error(f"{name} is no scenario")
    # What was started is stopped, whoever asks us to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    bench = Bench(arguments)
    material.make(bench.data, bench.generator, each_kind=any(name.startswith("auth-") for name in arguments.scenarios))
    bench.measure_floors()
    for name in arguments.scenarios:
        bench.measure(name)
    text = tables(bench.records, bench.floors, arguments)
    print(text)
    if arguments.write:
        pathlib.Path(arguments.write).write_text(text + "\n")
    if arguments.json:
        with open(arguments.json, "w", encoding="ascii") as file:
            file.writelines(json.dumps(record) + "\n" for record in bench.records)


if __name__ == "__main__":
    main()
