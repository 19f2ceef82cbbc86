"""Checks what can be checked of deploy/ without an engine for containers.

This script reads every YAML file and the dashboard, gives each expression of the dashboard to promtool, and looks
whether what docker-compose.yml mounts is there and whether the metrics asked for are written by anybody.
"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
complaints = []


def expressions():
    """Every query of the dashboard, with Grafana's variables filled in."""
    board = json.loads((DEPLOY / "grafana/dashboards/portcullis.json").read_text())
    ids = [panel["id"] for panel in board["panels"]]
    if len(ids) != len(set(ids)):
        complaints.append("portcullis.json: panel ids are not unique")
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            text = target["expr"].replace("$__rate_interval", "5m").replace("$__range", "1h")
            yield panel["title"], text.replace("$api", ".*")


def check_expressions():
    """promtool reads rules; so each query becomes a rule of a file of its own."""
    rules = [{"record": f"dashboard:query:{number}", "expr": text} for number, (_, text) in enumerate(expressions())]
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        json.dump({"groups": [{"name": "dashboard", "rules": rules}]}, file)  # JSON is YAML
        file.flush()
        checked = subprocess.run(["promtool", "check", "rules", file.name], capture_output=True, text=True)
    if checked.returncode != 0:
        complaints.append(f"portcullis.json: {checked.stdout}{checked.stderr}")


def metric_names(text):
    return set(re.findall(r"\bportcullis_[a-z_]+", text))


def check_names():
    """A panel or an alert over a metric nobody writes shows nothing, for ever."""
    written = set()
    for path in (ROOT / "crates").rglob("*.rs"):
        written |= metric_names(path.read_text())
    used = metric_names((DEPLOY / "prometheus/alerts.yml").read_text())
    for _, text in expressions():
        used |= metric_names(text)
    for name in sorted(used):
        if not {name, re.sub("_(bucket|count|sum)$", "", name), re.sub("_total$", "", name)} & written:
            complaints.append(f"no crate writes the metric {name}")


def check_mounts():
    """What is mounted must exist, and every image must name its version."""
    text = (ROOT / "docker-compose.yml").read_text()
    for path in re.findall(r"^\s*- (\./[^:]+):", text, re.M):
        if not (ROOT / path).exists():
            complaints.append(f"docker-compose.yml mounts {path}, which is not there")
    for image in re.findall(r"^\s*image: (\S+)", text, re.M):
        if ":" not in image or image.endswith(":latest"):
            complaints.append(f"docker-compose.yml: {image} names no version")


def check_yaml():
    for path in [ROOT / "docker-compose.yml", *DEPLOY.rglob("*.yaml"), *DEPLOY.rglob("*.yml")]:
        try:
            yaml.safe_load(path.read_text())
        except yaml.YAMLError as error:
            complaints.append(f"{path.relative_to(ROOT)}: {error}")


check_expressions()
check_names()
check_mounts()
check_yaml()
for complaint in complaints:
    print(complaint, file=sys.stderr)
sys.exit(1 if complaints else 0)
