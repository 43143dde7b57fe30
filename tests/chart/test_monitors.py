"""The chart's PodMonitors find what the operator builds."""

import pytest
from tests.chart.tools import Helm, Manifest, of_kind
from tests.operator.definition import make_spec

from serin_operator.api.status import Revision
from serin_operator.build import router, servers
from serin_operator.build.owner import Images, Owner

pytestmark = pytest.mark.helm

OWNER, IMAGES = Owner("prod", "iris", "uid"), Images("serin-model-server:1", "serin-router:1", "IfNotPresent")
REVISION = Revision("aaaaaaaaaa", "v1", "https://models.example.com/iris", "joblib", "a" * 64, IMAGES.server)


def monitors(helm: Helm, *values: str) -> dict[str, Manifest]:
    """By the component that each is for."""
    options = [f"metrics.podMonitor.{value}" for value in values]
    found = of_kind(helm.template(*(part for option in options for part in ("--set", option))), "PodMonitor")
    return {each["spec"]["selector"]["matchLabels"]["serin.dev/component"]: each for each in found}


def test_there_are_none_unless_asked_for(helm: Helm) -> None:
    assert monitors(helm) == {}


@pytest.mark.parametrize("component", ["server", "router"])
def test_a_monitor_reads_what_a_pods_annotations_say(helm: Helm, component: str) -> None:
    found = monitors(helm, "enabled=true", "interval=10s", "labels.release=prometheus")
    assert found.keys() == {"server", "router"}
    monitor = found[component]
    made = {
        "server": servers.deployment(OWNER, REVISION, 30, IMAGES),
        "router": router.deployment(OWNER, make_spec().traffic, IMAGES),
    }
    pod = made[component]["spec"]["template"]
    ports = {port["name"]: str(port["containerPort"]) for port in pod["spec"]["containers"][0]["ports"]}
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert ports[endpoint["port"]] == pod["metadata"]["annotations"]["prometheus.io/port"]
    assert endpoint["path"] == pod["metadata"]["annotations"]["prometheus.io/path"]
    assert endpoint["interval"] == "10s"
    assert monitor["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert monitor["spec"]["namespaceSelector"] == {"any": True}
    assert monitor["metadata"]["labels"]["release"] == "prometheus"


def test_an_operator_of_some_namespaces_has_those_monitored(helm: Helm) -> None:
    found = of_kind(
        helm.template("--set", "watchNamespaces={team-a,team-b}", "--set", "metrics.podMonitor.enabled=true"),
        "PodMonitor",
    )
    assert [each["spec"]["namespaceSelector"] for each in found] == [{"matchNames": ["team-a", "team-b"]}] * 2
