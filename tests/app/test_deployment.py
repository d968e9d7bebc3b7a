"""The files in docker/: what they name is there, and they keep what the documents promise."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.cli.worker import worker
from app.main import create_app
from app.settings import Settings

DOCKER = Path(__file__).resolve().parents[2] / "docker"
COMPOSE = sorted(DOCKER.glob("compose*.yaml"))
MANIFESTS = sorted((DOCKER / "kubernetes").glob("*.yaml"))
VARIABLES = {f"ODDITY_{name.upper()}" for name in Settings.model_fields}


def services(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text())["services"]
    return found


def ours(path: Path) -> dict[str, Any]:
    """The services that run this program."""
    return {name: one for name, one in services(path).items() if "build" in one or one.get("image") == "oddity"}


def containers() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Each pod's specification with its container."""
    for path in MANIFESTS:
        for document in yaml.safe_load_all(path.read_text()):
            if document["kind"] == "Deployment":
                pod = document["spec"]["template"]["spec"]
                for container in pod["containers"]:
                    yield pod, container


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.name)
def test_a_compose_file_names_what_is_there(path: Path) -> None:
    document = yaml.safe_load(path.read_text())
    for name, service in document["services"].items():
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert (DOCKER / source).exists() if source.startswith(".") else source in document["volumes"], (
                name,
                source,
            )
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), "nothing is published to the world unasked"
        depends = service.get("depends_on", ())
        assert set(depends) <= document["services"].keys()


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.name)
def test_our_containers_are_closed_and_get_time_to_end(path: Path) -> None:
    assert ours(path)
    for service in ours(path).values():
        assert service["read_only"] and service["cap_drop"] == ["ALL"] and "/tmp" in service["tmpfs"]
        assert set(service.get("environment", {})) <= VARIABLES
        drain = float(service.get("environment", {}).get("ODDITY_DRAIN_S", 0))
        assert float(service["stop_grace_period"].removesuffix("s")) > Settings().shutdown_s + drain


def test_compose_projects_have_names_of_their_own() -> None:
    # Else it is the folder's name, and with it the volumes of every other project in a folder called docker.
    names = [yaml.safe_load(path.read_text()).get("name", "docker") for path in COMPOSE]
    assert len({*names, "docker"}) == len(names) + 1


def test_the_proxy_finds_servers_on_any_engines_network() -> None:
    proxy = services(DOCKER / "compose.scaled.yaml")["proxy"]
    assert "./nginx.conf:/etc/nginx/templates/default.conf.template:ro" in proxy["volumes"]
    assert proxy["environment"]["NGINX_ENTRYPOINT_LOCAL_RESOLVERS"]
    assert "./resolver.envsh:/docker-entrypoint.d/16-first-resolver.envsh:ro" in proxy["volumes"]
    assert (DOCKER / "resolver.envsh").stat().st_mode & 0o111, "nginx's image leaves out what cannot be executed"
    put_in = re.compile(proxy["environment"]["NGINX_ENVSUBST_FILTER"])
    written = (DOCKER / "nginx.conf").read_text()
    assert re.findall(r"resolver +(\S+)", written) == ["${NGINX_LOCAL_RESOLVERS}"]
    # nginx's own variables are left alone, and so is the caller's X-Request-ID.
    assert [one for one in re.findall(r"\$\{?(\w+)", written) if put_in.search(one)] == ["NGINX_LOCAL_RESOLVERS"]
    assert "X-Request-ID" not in written


def test_servers_wait_for_the_database_that_stays() -> None:
    # The one that makes the tables' folder, at the first start, has no TCP port and ends again.
    (*_, asked) = services(DOCKER / "compose.scaled.yaml")["postgresql"]["healthcheck"]["test"]
    assert "--host 127.0.0.1" in asked


def test_pods_are_closed_and_get_time_to_end() -> None:
    found = list(containers())
    assert len(found) == 2
    for pod, container in found:
        assert pod["enableServiceLinks"] is False, "variables of the service `oddity` would begin as settings do"
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == 10001
        closed = container["securityContext"]
        assert closed["readOnlyRootFilesystem"] and not closed["allowPrivilegeEscalation"]
        assert closed["capabilities"] == {"drop": ["ALL"]} and container["resources"]["limits"]["memory"]
        variables = {one["name"]: one["value"] for one in container.get("env", ())}
        assert set(variables) <= VARIABLES
        spent = Settings().shutdown_s + float(variables.get("ODDITY_DRAIN_S", 0))
        assert pod["terminationGracePeriodSeconds"] > spent
        assert {one["name"] for one in container["volumeMounts"]} == {one["name"] for one in pod["volumes"]}


def test_probes_ask_for_paths_that_there_are(tmp_path: Path) -> None:
    known = set(create_app(Settings(data=tmp_path)).openapi()["paths"])
    probes = [
        one[kind]["httpGet"]["path"]
        for _, one in containers()
        for kind in ("startupProbe", "readinessProbe", "livenessProbe")
        if kind in one
    ]
    assert set(probes) == {"/healthz", "/readyz", "/metrics"} <= known
    assert "/readyz" in (DOCKER / "healthcheck.py").read_text()


def test_workers_are_started_with_options_that_there_are() -> None:
    command = services(DOCKER / "compose.scaled.yaml")["worker"]["command"]
    (args,) = [one["args"] for _, one in containers() if "args" in one]
    assert command == args and args[0] == "worker"
    options = {one.removeprefix("--").replace("-", "_") for one in args if one.startswith("--")}
    assert options <= set(worker.__annotations__)


def test_rules_and_dashboard_are_read_where_prometheus_and_grafana_look() -> None:
    settings = yaml.safe_load((DOCKER / "prometheus" / "prometheus.yml").read_text())
    assert all((DOCKER / "prometheus" / name).is_file() for name in settings["rule_files"])
    jobs = {one["job_name"]: one["dns_sd_configs"][0]["names"][0] for one in settings["scrape_configs"]}
    assert set(jobs.values()) <= services(DOCKER / "compose.scaled.yaml").keys()
    alerts = (DOCKER / "prometheus" / "alerts.yml").read_text()
    assert 'job="oddity"' in alerts and "oddity" in jobs
    for rule in yaml.safe_load(alerts)["groups"][0]["rules"]:
        assert rule["expr"] and rule["labels"]["severity"] in ("warning", "critical") and rule["annotations"]["summary"]
    dashboard = json.loads((DOCKER / "grafana" / "dashboards" / "oddity.json").read_text())
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"]) > 10
