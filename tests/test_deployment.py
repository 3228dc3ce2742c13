"""What operators start it with: the compose file, the image, the dashboard and the alerts keep what they promise."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from app.monitoring import database_metrics, sampler_metrics, trainer_metrics, web_metrics
from app.monitoring.figures import FIGURES
from app.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = sorted(set(SERVICES) - {"postgres"})
LONG_RUNNING = sorted(set(SERVICES) - {"migrate"})
DOCKERFILE = (ROOT / "Dockerfile").read_text()
MOST_S = {"web": 20, "sampler": 25, "trainer": 125}  # docs/monitoring.md: how long a stop takes


def seconds(text: str) -> int:
    minutes, _, rest = text.rpartition("m")
    return 60 * int(minutes or 0) + int(rest.removesuffix("s") or 0)


@pytest.mark.parametrize("name", LONG_RUNNING)
def test_every_service_that_stays_is_watched_and_started_again(name):
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"][0] == "CMD"
    assert service["healthcheck"]["retries"] >= 3


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_service_is_bounded(name):
    service = SERVICES[name]
    assert service["deploy"]["resources"]["limits"]["memory"]
    assert "cpus" not in service["deploy"]["resources"]["limits"]  # more than a machine has, and it does not start
    assert service["logging"]["options"]["max-size"]


@pytest.mark.parametrize("name", OURS)
def test_our_services_have_no_rights_that_they_do_not_need(name):
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service


@pytest.mark.parametrize("name", sorted(MOST_S))
def test_nobody_is_killed_while_stopping_in_good_order(name):
    period = re.sub(r"\$\{\w+:-(.*)\}", r"\1", SERVICES[name]["stop_grace_period"])
    assert seconds(period) > MOST_S[name]


@pytest.mark.parametrize("name", ["sampler", "trainer"])
def test_those_that_compute_get_a_gpu_and_answer_where_they_are_asked(name):
    (device,) = SERVICES[name]["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    port = SERVICES[name]["environment"][f"PODIUM_{name.upper()}_LISTEN"].rpartition(":")[2]
    assert f"127.0.0.1:{port}/readyz" in SERVICES[name]["healthcheck"]["test"][-1]


def test_compose_sets_only_what_exists():
    known = {str(field.validation_alias or f"PODIUM_{name.upper()}") for name, field in Settings.model_fields.items()}
    for name in OURS:
        assert set(SERVICES[name]["environment"]) <= known


@pytest.mark.parametrize("name", ["log_format", "log_level", "access_log", "drain_s"])
def test_what_is_logged_and_how_the_web_stops_is_set_in_the_env_file(name):
    variable, default = f"PODIUM_{name.upper()}", Settings.model_fields[name].default
    passed_on = re.fullmatch(rf"\$\{{{variable}:-(.+)\}}", SERVICES["web"]["environment"][variable])
    assert passed_on
    assert type(default)(passed_on[1]) == default


def test_a_proxy_in_front_is_named_in_the_env_file():
    """Else everybody behind it is one place to the limits on guessing."""
    passed_on = SERVICES["web"]["environment"]["PODIUM_PROXIES"]
    assert passed_on == f"${{PODIUM_PROXIES:-{Settings.model_fields['proxies'].default}}}"


def test_no_password_is_shipped_and_only_this_machine_reaches_the_web():
    for service in SERVICES.values():
        for name, value in service["environment"].items():
            if re.search("PASSWORD|TOKEN|SECRET", name):
                assert re.fullmatch(r"\$\{\w+:[-?].*\}", value), name
    assert COMPOSE["x-podium"]["environment"]["DATABASE_URL"].count("${POSTGRES_PASSWORD:?") == 1
    assert SERVICES["web"]["ports"] == ["127.0.0.1:8000:8000"]
    assert not any("ports" in SERVICES[name] for name in SERVICES if name != "web")


def test_services_wait_for_what_they_need():
    assert SERVICES["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    for name in MOST_S:
        assert SERVICES[name]["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}


def instructions() -> list[list[str]]:
    lines = re.sub(r"\\\n\s*", "", DOCKERFILE).splitlines()
    return [line.split(maxsplit=1) for line in lines if line and not line.startswith(("#", " "))]


def test_the_image_is_built_in_stages_and_runs_as_nobody_special():
    steps = instructions()
    bases = [rest for name, rest in steps if name == "FROM"]
    assert len(bases) == 2
    assert bases[0].endswith(" AS build")
    last = steps[[name for name, _ in steps].index("FROM", 1) :]
    assert ["USER", "podium"] in last
    assert last.index(["USER", "podium"]) < [name for name, _ in last].index("ENTRYPOINT")
    assert not any(name == "RUN" and "pip install" in rest for name, rest in last)  # no compiler, no cache, no sources


def test_whoever_runs_the_image_may_write_where_its_volumes_lie():
    owned = next(rest for name, rest in instructions() if name == "RUN" and "useradd" in rest)
    folders = shlex.split(owned.partition("install -d -o podium")[2])
    mounted = {volume.partition(":")[2] for name in OURS for volume in SERVICES[name]["volumes"]}
    assert mounted <= set(folders)


def test_the_image_has_what_the_package_is_made_of():
    copied = {rest.split()[0] for name, rest in instructions() if name == "COPY"}
    assert {"app", "trainer", "migrations", "frontend", "constraints.txt"} <= copied


def told() -> dict[str, set[str]]:
    """Name of each series of a metric -> its labels."""
    names: dict[str, set[str]] = {figure.name: set(figure.labels) for figure in FIGURES}
    names[database_metrics.UP] = set()
    registries: tuple[CollectorRegistry, ...]
    registries = web_metrics.OWN, sampler_metrics.REGISTRY, trainer_metrics.REGISTRY
    for metric in (metric for registry in registries for metric in registry._collector_to_names):
        labels, kind = set(metric._labelnames), metric._type
        for suffix in {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(kind, ("",)):
            names[metric._name + suffix] = labels | ({"le"} if suffix == "_bucket" else set())
    return names


def dashboard_expressions() -> list[str]:
    board = json.loads((ROOT / "deploy" / "grafana.json").read_text())
    asked = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    return asked + [
        variable["query"]["query"] for variable in board["templating"]["list"] if variable["type"] == "query"
    ]


def alert_expressions() -> list[str]:
    groups = yaml.safe_load((ROOT / "deploy" / "alerts.yml").read_text())["groups"]
    return [rule["expr"] for group in groups for rule in group["rules"]]


@pytest.mark.parametrize("expressions", [dashboard_expressions(), alert_expressions()], ids=["dashboard", "alerts"])
def test_what_is_drawn_and_warned_of_is_told(expressions):
    exist = told()
    for expression in expressions:
        named = re.findall(r"(podium_\w+)(?:\{([^}]*)\})?", expression)
        assert named, expression
        for name, matchers in named:
            assert name in exist, f"{name} in {expression}"
            assert set(re.findall(r"(\w+)(?:=~|!=|!~|=)", matchers)) <= exist[name], expression


@pytest.mark.parametrize("name", ["PodiumNoSampler", "PodiumNoTrainer"])
def test_what_is_missing_is_no_alarm_while_the_database_is_away(name):
    groups = yaml.safe_load((ROOT / "deploy" / "alerts.yml").read_text())["groups"]
    (expression,) = [rule["expr"] for group in groups for rule in group["rules"] if rule["alert"] == name]
    assert expression.endswith("and on () max(podium_database_up) == 1")


def test_the_dashboard_leaves_out_nothing_that_moves():
    drawn = " ".join(dashboard_expressions())
    missing = {name for name in told() if name not in drawn and not name.endswith(("_sum", "_count", "_bucket"))}
    assert missing == {
        "podium_projects",
        "podium_rounds",
        "podium_ended_slates",
        "podium_heartbeat_age_seconds",
        "podium_stage_running_seconds",
        "podium_stage_step",
        "podium_sampler_claims_total",
        "podium_trainer_stage_seconds_total",
        "podium_trainer_samples_total",
        "podium_web_processes",
    }


def test_panels_lie_beside_each_other_and_have_ids_of_their_own():
    panels = json.loads((ROOT / "deploy" / "grafana.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
