"""The chart: its values, and what it renders."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from tests.chart.tools import CHART, CRD, VALUES, Helm, Manifest, load, of_kind, only

from serin_operator.settings import Candidacy, Settings

SCHEMA = json.loads((CHART / "values.schema.json").read_text())

REFUSED_VALUES: dict[str, Any] = {
    "a misspelt key at the top": {"watchNamespace": ["team-a"]},
    "a misspelt key of an image": {"images": {"operator": {"version": "1.0"}}},
    "a misspelt image": {"images": {"modelServer": {"tag": "1.0"}}},
    "a tag that YAML reads as a number": {"images": {"server": {"tag": 1.0}}},
    "a digest in the tag": {"images": {"router": {"tag": "sha256:12"}}},
    "a short digest": {"images": {"router": {"digest": "sha256:12"}}},
    "a pull policy that Kubernetes has not": {"images": {"pullPolicy": "Sometimes"}},
    "namespaces as one string": {"watchNamespaces": "team-a,team-b"},
    "a namespace twice": {"watchNamespaces": ["team-a", "team-a"]},
    "a pattern as namespace": {"watchNamespaces": ["team-*"]},
    "an address without a scheme": {"prometheus": {"address": "prometheus:9090"}},
    "a password in an address": {"prometheus": {"address": "http://me:secret@prometheus:9090"}},
    "no replica": {"replicas": 0},
    "replicas as a word": {"replicas": "two"},
    "a level that logging has not": {"logLevel": "verbose"},
    "a foreign ServiceAccount without a name": {"serviceAccount": {"create": False, "name": ""}},
    "an unknown resource key": {"resources": {"requests": {}, "limit": {}}},
    "a ServiceMonitor switched on by a word": {"metrics": {"serviceMonitor": {"enabled": "yes"}}},
    "an interval without a unit": {"metrics": {"podMonitor": {"interval": "10"}}},
}


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("values", [CHART / "values.yaml", *VALUES], ids=lambda path: path.name)
def test_the_schema_accepts(values: Path) -> None:
    jsonschema.validate(load(values), SCHEMA)


@pytest.mark.parametrize("values", REFUSED_VALUES.values(), ids=REFUSED_VALUES.keys())
def test_the_schema_refuses(values: Any) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values, SCHEMA)


def test_every_value_is_in_the_schema_and_the_readme() -> None:
    readme = (CHART / "README.md").read_text()
    for name, value in load(CHART / "values.yaml").items():
        assert name in SCHEMA["properties"]
        assert f"`{name}" in readme
        if isinstance(value, dict) and "properties" in SCHEMA["properties"][name]:
            assert set(value) <= set(SCHEMA["properties"][name]["properties"]), name


def test_objects_of_the_schema_are_closed() -> None:
    def open_objects(path: str, schema: Any) -> list[str]:
        if isinstance(schema, list):
            return [found for item in schema for found in open_objects(path, item)]
        if not isinstance(schema, dict):
            return []
        here = [path] if schema.get("type") == "object" and "additionalProperties" not in schema else []
        return here + [found for key, inner in schema.items() for found in open_objects(f"{path}.{key}", inner)]

    # Helm's own key, and the parts of a Pod that its own schema describes.
    assert [path.rsplit(".", 1)[-1] for path in open_objects("", SCHEMA)] == [
        "global",
        "nodeAffinity",
        "podAffinity",
        "podAntiAffinity",
    ]


def values_of(path: Path | None) -> list[str]:
    return ["--values", str(path)] if path else []


every_values = pytest.mark.parametrize("values", [None, *VALUES], ids=lambda path: path.name if path else "defaults")


def container_of(manifests: list[Manifest]) -> Any:
    (container,) = only(manifests, "Deployment")["spec"]["template"]["spec"]["containers"]
    return container


def env_of(manifests: list[Manifest]) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in container_of(manifests)["env"] if "value" in entry}


def rules_of(manifests: list[Manifest]) -> list[tuple[str, dict[str, list[str]]]]:
    """Every RBAC rule with the name of its role."""
    roles = [*of_kind(manifests, "ClusterRole"), *of_kind(manifests, "Role")]
    return [(role["metadata"]["name"], rule) for role in roles for rule in role["rules"]]


@pytest.mark.helm
@every_values
def test_helm_lint_has_nothing_to_say(helm: Helm, values: Path | None) -> None:
    answer = helm("lint", "--strict", str(CHART), *values_of(values)).must_succeed()
    assert "[WARNING]" not in answer.out
    assert "[ERROR]" not in answer.out


@pytest.mark.helm
@pytest.mark.parametrize("values", REFUSED_VALUES.values(), ids=REFUSED_VALUES.keys())
def test_helm_refuses(helm: Helm, values: Any, tmp_path: Path) -> None:
    file = tmp_path / "values.json"
    file.write_text(json.dumps(values))
    answer = helm("template", "serin", str(CHART), "--values", str(file))
    assert answer.code != 0
    assert "don't meet the specifications of the schema" in answer.err


@pytest.mark.helm
@every_values
def test_every_pod_is_restricted(helm: Helm, values: Path | None) -> None:
    manifests = helm.template(*values_of(values))
    pod = only(manifests, "Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 65532
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert container_of(manifests)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container_of(manifests)["volumeMounts"] == [{"name": "tmp", "mountPath": "/tmp"}]


@pytest.mark.helm
@every_values
def test_no_right_is_a_wildcard(helm: Helm, values: Path | None) -> None:
    rules = rules_of(helm.template(*values_of(values)))
    assert len(rules) >= 8
    wild = [name for name, rule in rules for parts in rule.values() for part in parts if "*" in part]
    assert wild == []


@pytest.mark.helm
@every_values
def test_secrets_may_only_be_created(helm: Helm, values: Path | None) -> None:
    rules = rules_of(helm.template(*values_of(values)))
    on_secrets = [rule["verbs"] for _, rule in rules if "secrets" in rule["resources"]]
    assert on_secrets
    assert all(verbs == ["create"] for verbs in on_secrets)


@pytest.mark.helm
def test_the_operator_cannot_change_a_spec(helm: Helm) -> None:
    rules = [rule for name, rule in rules_of(helm.template()) if name == "serin-system:serin"]
    verbs = {resource: rule["verbs"] for rule in rules for resource in rule["resources"]}
    assert verbs["modeldeployments"] == ["get", "list", "watch"]
    assert verbs["modeldeployments/status"] == ["update"]
    assert set(verbs) == {
        "modeldeployments",
        "modeldeployments/status",
        "deployments",
        "services",
        "configmaps",
        "horizontalpodautoscalers",
        "poddisruptionbudgets",
        "secrets",
        "pods",
        "events",
    }


@pytest.mark.helm
@pytest.mark.parametrize(
    ("router", "group", "resources"),
    [
        ("gatewayAPI", "gateway.networking.k8s.io", {"httproutes", "grpcroutes"}),
        ("istio", "networking.istio.io", {"virtualservices", "destinationrules"}),
    ],
)
def test_a_router_that_is_enabled_brings_the_rights_on_its_routes_alone(
    helm: Helm, router: str, group: str, resources: set[str]
) -> None:
    def rights(*options: str) -> set[tuple[str, str]]:
        rules = [rule for name, rule in rules_of(helm.template(*options)) if name == "serin-system:serin"]
        return {(group, resource) for rule in rules for group in rule["apiGroups"] for resource in rule["resources"]}

    enabled = rights("--set", f"routers.{router}.enabled=true")
    assert enabled - rights() == {(group, resource) for resource in resources}


@pytest.mark.helm
def test_without_namespaces_the_rights_are_the_clusters(helm: Helm) -> None:
    manifests = helm.template()
    assert [role["metadata"]["name"] for role in of_kind(manifests, "Role")] == ["serin-lease"]
    (binding,) = of_kind(manifests, "ClusterRoleBinding")
    assert binding["roleRef"]["name"] == "serin-system:serin"
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "serin", "namespace": "serin-system"}]
    assert env_of(manifests)["SERIN_WATCH_NAMESPACES"] == ""


@pytest.mark.helm
def test_with_namespaces_the_rights_are_theirs_alone(helm: Helm) -> None:
    manifests = helm.template("--set", "watchNamespaces={team-a,team-b}", "--set", "rbac.aggregateRoles=false")
    assert not of_kind(manifests, "ClusterRole")
    assert not of_kind(manifests, "ClusterRoleBinding")
    namespaces = ["serin-system", "team-a", "team-b"]
    assert [role["metadata"]["namespace"] for role in of_kind(manifests, "Role")] == namespaces
    bindings = of_kind(manifests, "RoleBinding")
    assert [binding["metadata"]["namespace"] for binding in bindings] == namespaces
    assert {binding["subjects"][0]["namespace"] for binding in bindings} == {"serin-system"}
    assert env_of(manifests)["SERIN_WATCH_NAMESPACES"] == "team-a,team-b"


@pytest.mark.helm
@every_values
def test_the_rights_on_leases_are_the_least(helm: Helm, values: Path | None) -> None:
    """Of one name and in the operator's own namespace; only `create` cannot be bound to a name."""
    manifests = helm.template(*values_of(values))
    on_leases = [(name, rule) for name, rule in rules_of(manifests) if "leases" in rule["resources"]]
    lease = env_of(manifests)["SERIN_LEASE"]
    assert [(name, rule["verbs"], rule.get("resourceNames")) for name, rule in on_leases] == [
        (f"{lease}-lease", ["create"], None),
        (f"{lease}-lease", ["get", "update"], [lease]),
    ]
    (role,) = [role for role in of_kind(manifests, "Role") if role["metadata"]["name"] == f"{lease}-lease"]
    assert role["metadata"]["namespace"] == "serin-system"


@pytest.mark.helm
def test_the_clusters_own_roles_learn_of_model_deployments(helm: Helm) -> None:
    roles = {role["metadata"]["name"]: role for role in of_kind(helm.template(), "ClusterRole")}
    view, edit = roles["serin-view"], roles["serin-edit"]
    assert view["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-view"] == "true"
    assert edit["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-edit"] == "true"
    assert all(rule["verbs"] == ["get", "list", "watch"] for rule in view["rules"])
    assert all("status" not in resource for rule in edit["rules"] for resource in rule["resources"])


@pytest.mark.helm
def test_the_definition_is_the_canonical_one_and_kept(helm: Helm) -> None:
    crd = only(helm.template(), "CustomResourceDefinition")
    canonical = load(CRD)
    assert crd["spec"] == canonical["spec"]
    assert crd["metadata"]["name"] == canonical["metadata"]["name"]
    assert crd["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


@pytest.mark.helm
def test_the_definition_can_go_with_the_release_or_stay_out(helm: Helm) -> None:
    (crd,) = of_kind(helm.template("--set", "crds.keep=false"), "CustomResourceDefinition")
    assert "annotations" not in crd["metadata"]
    assert of_kind(helm.template("--set", "crds.install=false"), "CustomResourceDefinition") == []


@pytest.mark.helm
def test_images_are_of_the_charts_version_unless_set(helm: Helm) -> None:
    version = load(CHART / "Chart.yaml")["appVersion"]
    manifests = helm.template()
    assert container_of(manifests)["image"] == f"serin-operator:{version}"
    assert env_of(manifests)["SERIN_SERVER_IMAGE"] == f"serin-model-server:{version}"
    assert env_of(manifests)["SERIN_ROUTER_IMAGE"] == f"serin-router:{version}"

    manifests = helm.template("--values", str(CHART.parents[1] / "tests/chart/values/dev.yaml"))
    assert container_of(manifests)["image"] == "localhost/serin/operator:dev"
    assert env_of(manifests)["SERIN_SERVER_IMAGE"] == "localhost/serin/model-server:dev"
    assert env_of(manifests)["SERIN_ROUTER_IMAGE"] == "localhost/serin/router:dev"
    assert env_of(manifests)["SERIN_IMAGE_PULL_POLICY"] == "IfNotPresent"


@pytest.mark.helm
def test_every_setting_reaches_the_operator(helm: Helm) -> None:
    manifests = helm.template("--values", str(CHART.parents[1] / "tests/chart/values/full.yaml"))
    deployment = only(manifests, "Deployment")
    template = deployment["spec"]["template"]
    pod = template["spec"]
    digest = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
    assert deployment["metadata"]["name"] == "rollouts"
    assert container_of(manifests)["image"] == f"registry.example.com/serin-operator@sha256:{digest}"
    assert container_of(manifests)["imagePullPolicy"] == "Always"
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert pod["priorityClassName"] == "system-cluster-critical"
    assert pod["nodeSelector"] == {"kubernetes.io/os": "linux"}
    assert pod["tolerations"][0]["key"] == "dedicated"
    assert "nodeAffinity" in pod["affinity"]
    assert template["metadata"]["annotations"]["example.com/note"] == "yes"
    assert template["metadata"]["labels"]["team"] == "platform"
    assert env_of(manifests) == {
        "SERIN_SERVER_IMAGE": f"serin-model-server:{load(CHART / 'Chart.yaml')['appVersion']}",
        "SERIN_ROUTER_IMAGE": f"serin-router:{load(CHART / 'Chart.yaml')['appVersion']}",
        "SERIN_IMAGE_PULL_POLICY": "Always",
        "SERIN_WATCH_NAMESPACES": "",
        "SERIN_PROMETHEUS_ADDRESS": "http://prometheus.monitoring:9090",
        "SERIN_ROUTERS": "GatewayAPI,Istio",
        "SERIN_REQUIRE_SIGNATURE": "false",
        "SERIN_LOG_LEVEL": "info",
        "SERIN_LEASE": "rollouts",
    }
    monitor = only(manifests, "ServiceMonitor")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"]["endpoints"] == [{"port": "http", "path": "/metrics", "interval": "15s"}]


@pytest.mark.helm
@every_values
def test_the_operator_reads_its_settings(helm: Helm, values: Path | None, monkeypatch: pytest.MonkeyPatch) -> None:
    manifests = helm.template(*values_of(values))
    for name, value in env_of(manifests).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("POD_NAME", "serin-5d8f-x2x7p")
    monkeypatch.setenv("POD_NAMESPACE", "serin-system")
    chosen = load(CHART / "values.yaml") | (load(values) if values else {})
    settings = Settings.from_environment()
    assert settings.images.server == env_of(manifests)["SERIN_SERVER_IMAGE"]
    assert settings.images.router == env_of(manifests)["SERIN_ROUTER_IMAGE"]
    assert settings.images.pull_policy == container_of(manifests)["imagePullPolicy"]
    assert list(settings.namespaces) == chosen["watchNamespaces"]
    assert settings.prometheus == (chosen["prometheus"]["address"] or None)
    assert settings.log_level == chosen["logLevel"].upper()
    assert settings.require_signature == chosen["requireSignature"]
    lease = only(manifests, "Deployment")["metadata"]["name"]
    assert settings.candidacy == Candidacy("serin-system", lease, "serin-5d8f-x2x7p")
    enabled = {name.lower() for name, router in chosen["routers"].items() if router["enabled"]}
    assert {router.lower() for router in settings.routers} == enabled


@pytest.mark.helm
@every_values
def test_selectors_find_the_operators_pod(helm: Helm, values: Path | None) -> None:
    manifests = helm.template(*values_of(values))
    deployment = only(manifests, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels
    assert only(manifests, "Service")["spec"]["selector"].items() <= labels
    for monitor in of_kind(manifests, "ServiceMonitor"):
        service = only(manifests, "Service")["metadata"]["labels"].items()
        assert monitor["spec"]["selector"]["matchLabels"].items() <= service


@pytest.mark.helm
def test_two_operators_with_probes_and_names_of_their_own(helm: Helm) -> None:
    manifests = helm.template()
    spec = only(manifests, "Deployment")["spec"]
    container = container_of(manifests)
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    assert (spec["replicas"], spec["strategy"]) == (2, rolling)
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}
    assert container["ports"] == [{"name": "http", "containerPort": 8080}]
    own = {entry["name"]: entry["valueFrom"] for entry in container["env"] if "valueFrom" in entry}
    assert own == {
        "POD_NAME": {"fieldRef": {"fieldPath": "metadata.name"}},
        "POD_NAMESPACE": {"fieldRef": {"fieldPath": "metadata.namespace"}},
    }


@pytest.mark.helm
def test_operators_are_apart_where_that_is_possible_and_do_not_go_together(helm: Helm) -> None:
    manifests = helm.template()
    deployment = only(manifests, "Deployment")
    selector = deployment["spec"]["selector"]
    spread = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert [one["topologyKey"] for one in spread] == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
    assert all(one["whenUnsatisfiable"] == "ScheduleAnyway" and one["labelSelector"] == selector for one in spread)
    budget = only(manifests, "PodDisruptionBudget")["spec"]
    assert budget["selector"] == selector
    assert budget["maxUnavailable"] == 1


@pytest.mark.helm
def test_a_single_operator_keeps_no_node_from_being_drained(helm: Helm) -> None:
    manifests = helm.template("--set", "replicas=1")
    assert only(manifests, "Deployment")["spec"]["replicas"] == 1
    assert of_kind(manifests, "PodDisruptionBudget") == []


@pytest.mark.helm
def test_two_releases_of_one_name_share_nothing_of_their_own(helm: Helm) -> None:
    flags = [
        "--set",
        "watchNamespaces={shared}",
        "--set",
        "rbac.aggregateRoles=false",
        "--set",
        "crds.install=false",
    ]

    def identities(namespace: str) -> set[tuple[str, str, str]]:
        return {
            (found["kind"], found["metadata"].get("namespace", ""), found["metadata"]["name"])
            for found in helm.template(*flags, namespace=namespace)
        }

    assert identities("one") & identities("two") == set()
