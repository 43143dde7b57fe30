"""The complete desired set: names, labels, owners, the restricted profile, and where credentials may be."""

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from tests.operator.definition import make_spec

from serin_operator.api.spec import Profile, Signature, Spec, Strategy
from serin_operator.api.status import Phase, Revision, Rollout, Status
from serin_operator.build.manifests import manifests
from serin_operator.build.owner import Existing, Images, Manifest, Owner
from serin_operator.build.router import files_version

OWNER = Owner("shop", "iris", "0b29c1de-3a55-4b1c-9d5e-0e4a7f6f2d11")
IMAGES = Images(server="serin-model-server:1", router="serin-router:1", pull_policy="IfNotPresent")
NOW = 1_750_000_000.0
OLD, STABLE, CANARY, GONE = "0" * 10, "a" * 10, "b" * 10, "c" * 10
DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")


def revision(name: str, **more: Any) -> Revision:
    values: dict[str, Any] = {
        "version": f"v{name[0]}",
        "uri": f"https://models.example.com/{name}",
        "format": "joblib",
        "sha256": name[0] * 64,
        "image": "serin-model-server:1",
        "config": {"resources": {"requests": {"cpu": "100m"}}},
        "replicas": 2,
    }
    return Revision(revision=name, **(values | more))


ROLLING = Status(
    phase=Phase.PROGRESSING,
    weight=25,
    stable=revision(STABLE),
    canary=revision(CANARY, secret="store"),
    previous=revision(OLD, kept_until=NOW + 60),
    retiring=(revision(GONE, uri="pvc://models/iris/v3.joblib", kept_until=NOW + 5),),
    rollout=Rollout(NOW, step=1),
)


def built(status: Status = ROLLING, spec: Spec | None = None, resolve: bool = False) -> dict[tuple[str, str], Manifest]:
    found = manifests(OWNER, spec or make_spec(), status, resolve, IMAGES)
    by_name = {(manifest["kind"], manifest["metadata"]["name"]): manifest for manifest in found}
    assert len(by_name) == len(found), "two manifests for one object"
    return by_name


def pod_specs(found: dict[tuple[str, str], Manifest]) -> dict[str, dict[str, Any]]:
    specs = {name: m["spec"]["template"]["spec"] for (kind, name), m in found.items() if kind == "Deployment"}
    return specs | {name: m["spec"] for (kind, name), m in found.items() if kind == "Pod"}


def containers(found: dict[tuple[str, str], Manifest]) -> list[dict[str, Any]]:
    return [
        container
        for spec in pod_specs(found).values()
        for container in [*spec.get("initContainers", []), *spec["containers"]]
    ]


def test_a_rollout_has_these_objects() -> None:
    servers = [f"iris-{name}" for name in (STABLE, CANARY, OLD, GONE)]
    assert list(built()) == [
        *[(kind, name) for name in servers for kind in ("Service", "Deployment")],
        ("ConfigMap", "iris-router"),
        ("Deployment", "iris-router"),
        ("Service", "iris"),
        ("PodDisruptionBudget", "iris-stable"),
    ]


def test_a_stopped_revision_has_no_pods_and_keeps_its_name() -> None:
    down = replace(ROLLING, stable=revision(STABLE, replicas=0, stopped=True))
    found = built(down)
    assert found["Deployment", f"iris-{STABLE}"]["spec"]["replicas"] == 0
    assert ("Service", f"iris-{STABLE}") in found


def test_where_two_can_not_run_at_once_one_pod_goes_before_the_next_comes() -> None:
    for strategy, rolling in (("Canary", (0, 1)), ("Recreate", (1, 0))):
        found = built(spec=make_spec(rollout={"strategy": strategy}))["Deployment", f"iris-{STABLE}"]
        update = found["spec"]["strategy"]["rollingUpdate"]
        assert (update["maxUnavailable"], update["maxSurge"]) == rolling


BLUE_GREEN = make_spec(rollout={"strategy": "BlueGreen"})


@pytest.mark.parametrize(
    ("spec", "status", "reached"),
    [
        (make_spec(), ROLLING, None),
        (BLUE_GREEN, replace(ROLLING, rollout=Rollout(NOW, strategy=Strategy.BLUE_GREEN)), CANARY),
        # Between rollouts, and in one that began otherwise, the address is there and nobody answers.
        (BLUE_GREEN, replace(ROLLING, canary=None, rollout=None), "none"),
        (BLUE_GREEN, ROLLING, "none"),
        # The strategy was edited: the preview stays until the rollout is over.
        (make_spec(), replace(ROLLING, rollout=Rollout(NOW, strategy=Strategy.BLUE_GREEN)), CANARY),
    ],
)
def test_the_preview_reaches_the_new_revision_alone(spec: Spec, status: Status, reached: str | None) -> None:
    service = built(status, spec).get(("Service", "iris-preview"))
    assert (service is not None) == (reached is not None)
    if service is not None:
        assert service["spec"]["selector"] == OWNER.labels("server", reached)
        ports = [(port["port"], port["targetPort"]) for port in service["spec"]["ports"]]
        assert ports == [(80, "http"), (8081, 8081)]


@pytest.mark.parametrize("resolve", [True, False])
def test_before_the_first_revision_there_is_at_most_a_resolver(resolve: bool) -> None:
    kinds = [kind for kind, _ in built(Status(), resolve=resolve)]
    assert kinds == (["Pod"] if resolve else [])


def test_every_name_is_a_dns_label_with_the_longest_owner() -> None:
    longest = replace(OWNER, name="i" * 40)
    for manifest in manifests(longest, make_spec(), ROLLING, True, IMAGES):
        assert DNS_LABEL.fullmatch(manifest["metadata"]["name"]), manifest["metadata"]["name"]


def test_everything_is_labelled_and_owned() -> None:
    for (kind, name), manifest in built(resolve=True).items():
        metadata = manifest["metadata"]
        assert metadata["namespace"] == "shop"
        assert metadata["labels"]["app.kubernetes.io/managed-by"] == "serin"
        assert metadata["labels"]["serin.dev/model-deployment"] == "iris"
        (owner,) = metadata["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["uid"], owner["controller"]) == (
            "ModelDeployment",
            "iris",
            OWNER.uid,
            True,
        ), (kind, name)
    components = {manifest["metadata"]["labels"]["serin.dev/component"] for manifest in built(resolve=True).values()}
    assert components == {"server", "router", "resolver"}


def test_selectors_find_the_pods_and_only_those() -> None:
    found = built()
    templates = {
        name: m["spec"]["template"]["metadata"]["labels"] for (kind, name), m in found.items() if kind == "Deployment"
    }
    for (kind, name), manifest in found.items():
        if kind == "ConfigMap":
            continue
        selector = manifest["spec"]["selector"]
        selector = selector.get("matchLabels", selector)
        matching = [pods for pods, labels in templates.items() if selector.items() <= labels.items()]
        assert matching == [{"iris": "iris-router", "iris-stable": f"iris-{STABLE}"}.get(name, name)], (kind, name)


def test_a_selector_never_changes() -> None:
    """Deployments refuse it: whatever happens to a revision, its selector and its pods' fixed fields stay."""
    promoted = replace(
        ROLLING,
        stable=ROLLING.canary,
        canary=None,
        previous=replace(revision(STABLE), kept_until=NOW),
        retiring=(),
        weight=0,
        rollout=None,
    )
    changed = make_spec(
        model={"version": "v9"},
        server={"replicas": 7, "image": "other:2", "podTemplate": {"labels": {"serin.dev/component": "mine"}}},
        traffic={"router": {"replicas": 3}},
    )
    before, after = built(), built(promoted, changed)
    for key in before.keys() & after.keys():
        if key[0] not in ("ConfigMap", "PodDisruptionBudget"):
            assert before[key]["spec"]["selector"] == after[key]["spec"]["selector"], key


def test_a_promotion_replaces_no_pod() -> None:
    promoted = replace(
        ROLLING, stable=ROLLING.canary, canary=None, previous=replace(revision(STABLE), kept_until=NOW), weight=0
    )
    before, after = built(), built(promoted)
    for name in (f"iris-{STABLE}", f"iris-{CANARY}", "iris-router"):
        assert before["Deployment", name] == after["Deployment", name]


def test_users_labels_do_not_displace_serins() -> None:
    template = {"labels": {"team": "growth", "serin.dev/revision": "mine"}, "annotations": {"note": "x"}}
    status = replace(ROLLING, stable=revision(STABLE, config={"podTemplate": template}))
    metadata = built(status)["Deployment", f"iris-{STABLE}"]["spec"]["template"]["metadata"]
    assert metadata["labels"]["team"] == "growth"
    assert metadata["labels"]["serin.dev/revision"] == STABLE
    assert metadata["annotations"]["note"] == "x"
    assert metadata["annotations"]["prometheus.io/port"] == "8080"


def test_scheduling_fields_reach_the_pod() -> None:
    template = {
        "nodeSelector": {"gpu": "yes"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "priorityClassName": "high",
        "imagePullSecrets": [{"name": "registry"}],
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
        ],
    }
    status = replace(ROLLING, stable=revision(STABLE, config={"podTemplate": template}))
    spec = pod_specs(built(status))[f"iris-{STABLE}"]
    for field in ("nodeSelector", "tolerations", "priorityClassName", "imagePullSecrets"):
        assert spec[field] == template[field]
    (constraint,) = spec["topologySpreadConstraints"]
    assert constraint["labelSelector"]["matchLabels"]["serin.dev/revision"] == STABLE


def test_every_container_is_restricted() -> None:
    found = built(resolve=True)
    assert {container["name"] for container in containers(found)} == {"fetch", "server", "envoy", "digest"}
    for container in containers(found):
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert "privileged" not in security
        assert "/tmp" in [mount["mountPath"] for mount in container["volumeMounts"]]
    for name, spec in pod_specs(found).items():
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] == 65532
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        allowed = {"emptyDir", "configMap", "secret", "persistentVolumeClaim"}
        assert all(len(volume.keys() & allowed) == 1 for volume in spec["volumes"]), name


def test_no_pod_gets_a_token() -> None:
    for spec in pod_specs(built(resolve=True)).values():
        assert spec["automountServiceAccountToken"] is False
        assert "serviceAccountName" not in spec


def test_every_mount_has_its_volume() -> None:
    for name, spec in pod_specs(built(resolve=True)).items():
        volumes = {volume["name"] for volume in spec["volumes"]}
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes, name


def test_credentials_reach_only_the_containers_that_fetch() -> None:
    status = replace(ROLLING, stable=revision(STABLE, secret="store"))
    found = built(status, make_spec(model={"sha256": None, "secretRef": {"name": "store"}}), resolve=True)
    holders = {container["name"] for container in containers(found) if "store" in json.dumps(container)}
    assert holders == {"fetch", "digest"}
    assert not any("store" in json.dumps(spec["volumes"]) for spec in pod_specs(found).values())
    fetch = next(container for container in containers(found) if container["name"] == "fetch")
    assert [item["name"] for item in fetch["env"]] == [
        "SERIN_FETCH_TOKEN",
        "SERIN_FETCH_USERNAME",
        "SERIN_FETCH_PASSWORD",
    ]


def test_a_revision_without_a_secret_asks_for_none() -> None:
    fetch = pod_specs(built())[f"iris-{STABLE}"]["initContainers"][0]
    assert fetch["env"] == []


def test_users_environment_reaches_only_the_server() -> None:
    status = replace(ROLLING, stable=revision(STABLE, config={"env": [{"name": "THREADS", "value": "2"}]}))
    found = built(status)
    assert [c["name"] for c in containers(found) if {"name": "THREADS", "value": "2"} in c.get("env", [])] == ["server"]


def test_a_model_on_a_claim_is_mounted_read_only_where_it_is_fetched() -> None:
    spec = pod_specs(built())[f"iris-{GONE}"]
    assert {"name": "claim", "persistentVolumeClaim": {"claimName": "models", "readOnly": True}} in spec["volumes"]
    mount = {"name": "claim", "mountPath": "/pvc/models", "readOnly": True}
    assert mount in spec["initContainers"][0]["volumeMounts"]
    assert mount not in spec["containers"][0]["volumeMounts"]


def test_what_is_fetched_is_what_is_served() -> None:
    spec = pod_specs(built())[f"iris-{CANARY}"]
    fetch, serve = spec["initContainers"][0]["args"], spec["containers"][0]["args"]
    assert fetch[0], serve[0] == ("fetch", "serve")
    assert fetch[fetch.index("--sha256") + 1] == serve[serve.index("--sha256") + 1] == "b" * 64
    assert fetch[fetch.index("--output") + 1] == serve[serve.index("--model-path") + 1]
    assert serve[serve.index("--revision") + 1] == CANARY
    assert serve[serve.index("--model-name") + 1] == "iris"


def serve_arguments(**of_revision: Any) -> list[str]:
    status = replace(ROLLING, canary=revision(CANARY, **of_revision))
    arguments: list[str] = pod_specs(built(status))[f"iris-{CANARY}"]["containers"][0]["args"]
    return arguments


def test_the_server_is_told_how_to_load_the_model() -> None:
    arguments = serve_arguments(format="skops", trusted_types=("mine.Clip", "mine.Log"), config={"accelerate": "Never"})
    assert arguments[-8:] == [
        *("--format", "skops"),
        *("--trusted-type", "mine.Clip", "--trusted-type", "mine.Log"),
        *("--accelerate", "Never"),
    ]


def test_a_joblib_model_is_served_with_no_option_that_an_older_image_lacks() -> None:
    options = {argument for argument in serve_arguments() if argument.startswith("--")}
    assert not options & {"--format", "--trusted-type", "--accelerate", "--processes", "--access-log-sample"}


def test_the_server_is_told_its_processes_and_how_much_to_log() -> None:
    arguments = serve_arguments(config={"processes": 4, "accessLog": {"sample": 0.01}})
    assert arguments[-4:] == ["--processes", "4", "--access-log-sample", "0.01"]


def test_a_signature_is_fetched_with_the_model_and_checked_where_it_is_loaded() -> None:
    signature = Signature("pvc://signatures/first.sig", public_key="-----BEGIN PUBLIC KEY-----\n…")
    manifests = built(replace(ROLLING, stable=revision(STABLE, signature=signature)))
    fetch, serve = (
        next(one for one in containers(manifests) if one["name"] == name and "--signature" in " ".join(one["args"]))
        for name in ("fetch", "server")
    )
    assert fetch["args"][-2:] == ["--signature-uri", "pvc://signatures/first.sig"]
    assert [mount["mountPath"] for mount in fetch["volumeMounts"]] == ["/model", "/tmp", "/pvc/signatures"]
    assert serve["args"][-3:] == ["--signature", "/model/model.sig", f"--public-key={signature.public_key}"]
    assert "/pvc/signatures" not in [mount["mountPath"] for mount in serve["volumeMounts"]]


@pytest.mark.parametrize(
    ("uri", "volume"), [("https://example.com/p", None), ("pvc://models/p", "claim"), ("pvc://profiles/p", "claim-1")]
)
def test_a_profile_is_fetched_and_verified_like_the_model(uri: str, volume: str | None) -> None:
    changed = {"uri": "pvc://models/iris", "profile": Profile(uri, "c" * 64)}
    spec = pod_specs(built(replace(ROLLING, canary=revision(CANARY, **changed))))[f"iris-{CANARY}"]
    model, profile = spec["initContainers"]
    arguments = profile["args"]
    assert arguments == ["fetch", "--uri", uri, "--sha256", "c" * 64, "--output", "/model/profile.json"]
    assert spec["containers"][0]["args"][-2:] == ["--profile", "/model/profile.json"]
    assert [mount["name"] for mount in model["volumeMounts"]] == ["model", "tmp", "claim"]
    assert [mount["name"] for mount in profile["volumeMounts"]] == ["model", "tmp", *([volume] if volume else [])]
    claims = {"claim", volume} - {None}
    assert {each["name"] for each in spec["volumes"] if "persistentVolumeClaim" in each} == claims
    assert model["env"] == profile["env"]


def test_a_revision_keeps_the_image_it_began_with() -> None:
    status = replace(ROLLING, stable=revision(STABLE, image="serin-model-server:0"))
    assert {container["image"] for container in containers(built(status))} == {
        "serin-model-server:0",
        "serin-model-server:1",
        "serin-router:1",
    }


def test_pods_outlive_the_longest_request() -> None:
    for name, spec in pod_specs(built(spec=make_spec(traffic={"timeout": "10m"}))).items():
        assert spec["terminationGracePeriodSeconds"] > 600, name


def test_each_revision_has_the_pods_that_were_decided() -> None:
    status = replace(ROLLING, stable=revision(STABLE, replicas=4), canary=revision(CANARY, replicas=1))
    found = built(status, spec=make_spec(server={"replicas": 9}, traffic={"router": {"replicas": 3}}))
    replicas = {name: m["spec"]["replicas"] for (kind, name), m in found.items() if kind == "Deployment"}
    assert replicas == {
        f"iris-{STABLE}": 4,
        f"iris-{CANARY}": 1,
        f"iris-{OLD}": 2,
        f"iris-{GONE}": 2,
        "iris-router": 3,
    }


AUTOSCALING = {"minReplicas": 2, "maxReplicas": 8, "requestsInFlight": {"averageValue": 4}}


def test_the_autoscaler_scales_the_resource_and_no_deployment() -> None:
    """Roles move and it stays: at a promotion it has nothing to be told, and nothing to fight over."""
    spec = make_spec(server={"autoscaling": {**AUTOSCALING, "cpu": {"averageUtilization": 70}}})
    autoscaler = built(spec=spec)["HorizontalPodAutoscaler", "iris"]["spec"]
    target = {"apiVersion": "serin.dev/v1alpha1", "kind": "ModelDeployment", "name": "iris"}
    assert autoscaler["scaleTargetRef"] == target
    assert (autoscaler["minReplicas"], autoscaler["maxReplicas"]) == (2, 8)
    cpu, in_flight = autoscaler["metrics"]
    assert cpu["resource"] == {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}
    assert in_flight["object"] == {
        "describedObject": target,
        "metric": {"name": "serin_requests_in_flight"},
        "target": {"type": "AverageValue", "averageValue": "4"},
    }
    promoted = replace(ROLLING, stable=ROLLING.canary, canary=None, weight=0, rollout=None)
    assert built(promoted, spec)["HorizontalPodAutoscaler", "iris"]["spec"] == autoscaler


def test_the_autoscaler_does_not_go_below_what_traffic_that_moves_may_need() -> None:
    spec = make_spec(server={"autoscaling": AUTOSCALING})
    autoscaler = built(replace(ROLLING, least_replicas=5), spec)["HorizontalPodAutoscaler", "iris"]["spec"]
    assert (autoscaler["minReplicas"], autoscaler["maxReplicas"]) == (5, 8)


def test_without_autoscaling_there_is_no_autoscaler() -> None:
    assert not [kind for kind, _ in built() if kind == "HorizontalPodAutoscaler"]
    assert not [kind for kind, _ in built(Status(), make_spec(server={"autoscaling": AUTOSCALING}))]


def test_clients_find_the_router_and_the_router_its_pods() -> None:
    found = built()
    (port,) = found["Service", "iris"]["spec"]["ports"]
    assert (port["port"], port["targetPort"]) == (80, "http")
    envoy = pod_specs(found)["iris-router"]["containers"][0]
    assert {p["name"]: p["containerPort"] for p in envoy["ports"]} == {"http": 8080, "status": 9902}
    servers = found["Service", f"iris-{STABLE}"]["spec"]
    assert servers["clusterIP"] == "None"
    assert {p["name"]: (p["port"], p["targetPort"]) for p in servers["ports"]} == {
        "http": (8080, "http"),
        "grpc": (8081, 8081),
    }


def test_several_routers_run_apart_and_are_drained_one_at_a_time() -> None:
    found = built(spec=make_spec(traffic={"router": {"replicas": 2}}))
    budget = found["PodDisruptionBudget", "iris-router"]["spec"]
    selector = found["Deployment", "iris-router"]["spec"]["selector"]
    assert budget == {"maxUnavailable": 1, "selector": selector}
    spread = pod_specs(found)["iris-router"]["topologySpreadConstraints"]
    assert {each["whenUnsatisfiable"] for each in spread} == {"ScheduleAnyway"}
    assert all(each["labelSelector"] == selector for each in spread)
    assert ("PodDisruptionBudget", "iris-router") not in built()


def test_routers_are_scraped_where_they_tell_of_themselves() -> None:
    template = built()["Deployment", "iris-router"]["spec"]["template"]
    told = {key.removeprefix("prometheus.io/"): value for key, value in template["metadata"]["annotations"].items()}
    assert (told["scrape"], told["port"], told["path"]) == ("true", "9902", "/stats/prometheus")


def test_a_certificate_is_served_on_a_port_of_its_own_and_may_be_missing() -> None:
    found = built(spec=make_spec(traffic={"tls": {"secretName": "iris-tls"}}))
    ports = {port["port"]: port["targetPort"] for port in found["Service", "iris"]["spec"]["ports"]}
    assert ports == {80: "http", 443: "https"}
    pod = pod_specs(found)["iris-router"]
    assert {"name": "tls", "secret": {"secretName": "iris-tls", "optional": True}} in pod["volumes"]
    listening = {port["name"]: port["containerPort"] for port in pod["containers"][0]["ports"]}
    assert listening == {"http": 8080, "https": 8443, "status": 9902}
    assert "sds.json" in found["ConfigMap", "iris-router"]["data"]
    assert "sds.json" not in built()["ConfigMap", "iris-router"]["data"]


@pytest.mark.parametrize(
    ("traffic", "replaces"),
    [
        ({"testers": {"header": {"name": "x-tester", "value": "1"}}}, False),
        ({"sticky": {"header": "x-user"}}, False),
        ({"timeout": "31s"}, False),
        ({"sticky": {"cookie": "session"}}, True),
        ({"tls": {"secretName": "iris-tls"}}, True),
        ({"accessLog": {"sample": 0}}, True),
    ],
)
def test_only_what_envoy_starts_with_replaces_the_routers(traffic: dict[str, Any], replaces: bool) -> None:
    before, after = (
        found["Deployment", "iris-router"]["spec"]["template"]["metadata"]["annotations"]["serin.dev/bootstrap"]
        for found in (built(), built(spec=make_spec(traffic=traffic)))
    )
    assert (before != after) == replaces


def test_the_resolver_reads_where_the_model_is() -> None:
    spec = make_spec(model={"uri": "pvc://models/iris/v9.joblib", "sha256": None})
    ((kind, name),) = built(Status(), spec, resolve=True)
    assert kind == "Pod" and name.startswith("iris-resolve-")
    (container,) = built(Status(), spec, resolve=True)[kind, name]["spec"]["containers"]
    assert container["args"] == ["digest", "--uri", "pvc://models/iris/v9.joblib"]
    others = [make_spec(model={"uri": "pvc://models/iris/v9.joblib", "sha256": None, "version": v}) for v in ("1", "2")]
    assert len({name, *[key for other in others for _, key in built(Status(), other, resolve=True)]}) == 3


def test_nothing_changes_when_nothing_changed() -> None:
    """Server-side apply is skipped by comparing bytes, and the routers are nudged when theirs differ."""
    once, twice = built(resolve=True), built(replace(ROLLING, observed_generation=9, metrics=()), resolve=True)
    assert json.dumps(list(once.values())) == json.dumps(list(twice.values()))


def test_the_version_of_the_files_follows_the_route() -> None:
    versions = {files_version(built(replace(ROLLING, weight=w))["ConfigMap", "iris-router"]) for w in (5, 5, 25, 50)}
    assert len(versions) == 3


@pytest.mark.parametrize(
    ("kind", "metadata", "version"),
    [
        ("Deployment", {"generation": 3, "resourceVersion": "99"}, 3),
        ("PodDisruptionBudget", {"generation": 1, "resourceVersion": "99"}, 1),
        ("Service", {"resourceVersion": "99"}, 99),
        ("ConfigMap", {"resourceVersion": "7", "ownerReferences": [{"uid": "u", "controller": True}]}, 7),
    ],
)
def test_an_existing_object_is_read(kind: str, metadata: dict[str, Any], version: int) -> None:
    existing = Existing.of({"metadata": {"namespace": "shop", "name": "iris", "uid": "0", **metadata}}, kind)
    assert existing.key == (kind, "shop", "iris")
    assert existing.version == version
    assert existing.owner == ("u" if "ownerReferences" in metadata else None)


@pytest.mark.parametrize(
    ("status", "reason", "why"),
    [
        ("True", "FailedCreate", "exceeded quota: pods"),
        ("False", "FailedCreate", ""),
        ("True", "FailedDelete", ""),
    ],
)
def test_a_deployment_tells_why_its_pods_can_not_be_made(status: str, reason: str, why: str) -> None:
    metadata = {"namespace": "shop", "name": "iris", "uid": "0", "resourceVersion": "9"}
    conditions = [
        {"type": "Available", "status": "False", "message": "too few"},
        {"type": "ReplicaFailure", "status": status, "reason": reason, "message": "exceeded quota: pods"},
    ]
    raw = {"metadata": metadata, "status": {"conditions": conditions}}
    assert Existing.of(raw, "Deployment").unmade == why
