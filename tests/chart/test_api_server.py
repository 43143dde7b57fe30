"""The chart and the operator's rights against a real API server."""

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from tests.chart.tools import CHART, PLURAL, Helm, Kubectl, Make, load, named, only, run

pytestmark = pytest.mark.cluster


def test_the_example_in_the_notes_is_accepted(kubectl: Kubectl, helm: Helm) -> None:
    flags = ["--dry-run=server", "--namespace", kubectl.namespace, "--set", "crds.install=false"]
    answer = run([helm.binary, "install", kubectl.namespace, str(CHART), *flags]).must_succeed()
    notes = answer.out.split("NOTES:")[1]
    example = yaml.safe_load(notes.split("<<EOT")[1].split("EOT")[0])
    kubectl.dry_run(example).must_succeed()
    assert f"kubectl --namespace {kubectl.namespace} rollout status deployment/" in notes


@pytest.mark.helm
@pytest.mark.parametrize("values", ["dev.yaml", "namespaces.yaml", "full.yaml"])
def test_the_rendered_chart_is_accepted(kubectl: Kubectl, helm: Helm, values: str) -> None:
    file = load(Path(__file__).parent / "values" / values)
    # What needs more than an API server has: other namespaces, and the Prometheus operator's definitions.
    if "watchNamespaces" in file:
        file["watchNamespaces"] = [kubectl.namespace]
    file.pop("metrics", None)
    manifests = helm.template(
        *[part for key, value in file.items() for part in ("--set-json", f"{key}={json.dumps(value)}")],
        release=kubectl.namespace,
        namespace=kubectl.namespace,
    )
    assert len(manifests) >= 5
    kubectl.apply(*manifests, dry_run=True).must_succeed()


@pytest.mark.helm
def test_the_operators_pod_passes_the_restricted_level(kubectl: Kubectl, helm: Helm) -> None:
    """The namespace enforces it, so that a pod with less is refused by the API server itself."""
    template = only(helm.template(namespace=kubectl.namespace), "Deployment")["spec"]["template"]
    # The ServiceAccount of a release is not installed here; the namespace's own stands in.
    template["spec"].pop("serviceAccountName")
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "operator"}, "spec": template["spec"]}
    kubectl("wait", "--for=create", "serviceaccount/default", "--timeout=30s").must_succeed()
    kubectl.dry_run(pod).must_succeed()
    loose = deepcopy(pod)
    loose["spec"]["containers"][0]["securityContext"]["capabilities"] = {}
    answer = kubectl.dry_run(loose)
    assert answer.code != 0
    assert "violates PodSecurity" in answer.err


@pytest.fixture(scope="module")
def operator(kubectl: Kubectl, helm: Helm) -> Kubectl:
    """kubectl with the rights that the chart gives the operator in one namespace."""
    manifests = helm.template(
        "--set",
        f"watchNamespaces={{{kubectl.namespace}}}",
        namespace=kubectl.namespace,
    )
    name = f"{kubectl.namespace}:serin"  # beside the one for the Lease
    role = named(manifests, "Role", name)
    for rule in role["rules"]:
        if rule["apiGroups"] == ["serin.dev"]:
            rule["apiGroups"] = [kubectl.group]
            rule["resources"] = [name.replace("modeldeployments", PLURAL) for name in rule["resources"]]
    kubectl.apply(role, only(manifests, "ServiceAccount"), named(manifests, "RoleBinding", name)).must_succeed()
    return replace(kubectl, user=f"system:serviceaccount:{kubectl.namespace}:serin")


@pytest.mark.helm
def test_the_operator_may_apply_what_it_makes(operator: Kubectl) -> None:
    labels = {"app": "x"}
    container = {"name": "x", "image": "x"}
    pod = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"a": "b"}}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "x"},
        "spec": {"selector": labels, "ports": [{"port": 80}]},
    }
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "x"},
        "spec": {"selector": {"matchLabels": labels}, "template": pod},
    }
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "x"}
    autoscaler = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "x"},
        "spec": {"scaleTargetRef": target, "maxReplicas": 2},
    }
    operator.apply(config, service, deployment, autoscaler).must_succeed()
    config["data"] = {"a": "c"}
    operator.apply(config).must_succeed()
    operator("delete", "deployment/x", "service/x", "configmap/x", "hpa/x").must_succeed()


@pytest.mark.helm
def test_the_operator_may_write_a_status_and_no_spec(operator: Kubectl, make: Make) -> None:
    written = make("owned")
    plural, _, group = operator.resource.partition(".")
    path = f"/apis/{group}/v1alpha1/namespaces/{operator.namespace}/{plural}/owned/status"
    body = json.dumps(written | {"status": {"phase": "Serving"}})
    operator("replace", "--raw", path, "--filename=-", stdin=body).must_succeed()
    pause = '{"spec": {"rollout": {"paused": true}}}'
    refused = operator("patch", operator.resource, "owned", "--type=merge", "--patch", pause)
    assert refused.code != 0
    assert "cannot patch resource" in refused.err


@pytest.mark.helm
def test_the_operator_may_create_a_secret_and_read_none(operator: Kubectl) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "iris-prediction-key"}}
    operator.create(secret).must_succeed()
    for verb in ("get", "list", "watch", "update", "patch", "delete"):
        answer = operator("auth", "can-i", verb, "secrets")
        assert (answer.code, answer.out.strip()) == (1, "no"), verb


@pytest.mark.helm
@pytest.mark.parametrize(
    "right",
    [
        ("create", "pods", "--subresource=exec"),
        ("create", "rolebindings"),
        ("get", "nodes"),
        ("create", "events"),
        ("delete", "deployments", "--namespace=kube-system"),
    ],
    ids=" ".join,
)
def test_the_operator_may_not(operator: Kubectl, right: tuple[str, ...]) -> None:
    answer = operator("auth", "can-i", *right)
    assert answer.out.strip() == "no"


@pytest.mark.helm
def test_the_operator_may_say_what_it_decides(operator: Kubectl) -> None:
    answer = operator("auth", "can-i", "create", "events.events.k8s.io").must_succeed()
    assert answer.out.strip() == "yes"
