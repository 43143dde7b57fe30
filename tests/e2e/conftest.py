"""What the end-to-end tests share: Serin installed by its chart, a namespace with model files, a watch, the ledger."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from demo import faults, manifests, models
from demo.environment import Cluster, install_serin
from tests.e2e import cluster as clusters
from tests.e2e import gateways
from tests.e2e.deployments import ModelDeployment, quick_spec
from tests.e2e.figures import Figures
from tests.e2e.installed import Operator, Reaper, reaper_manifest
from tests.e2e.traffic import Traffic
from tests.e2e.vouched import Vouched, vouch
from tests.e2e.watching import Watch

_FIGURES = pytest.StashKey[Figures]()
NewModelDeployment = Callable[..., ModelDeployment]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs the cluster; the ledger is read when all others have written to it."""
    items.sort(key=lambda item: item.path.name == "test_ledger.py")
    for item in items:
        if item.path.is_relative_to(__file__.rpartition("/")[0]):
            item.add_marker(pytest.mark.e2e)
            if item.get_closest_marker("timeout") is None:  # every wait has a bound of its own
                compiles = "gateway_operator" in getattr(item, "fixturenames", ())  # a Gateway, the first time
                item.add_marker(pytest.mark.timeout(1800 if compiles else 900))


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_FIGURES] = Figures()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """The figures, whatever became of the tests."""
    figures = config.stash[_FIGURES]
    if figures.traffic:
        terminalreporter.section("figures")
        terminalreporter.write_line("\n".join(figures.table()))


@pytest.fixture(scope="session")
def figures(pytestconfig: pytest.Config) -> Figures:
    return pytestconfig.stash[_FIGURES]


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    try:
        return clusters.from_environment()
    except RuntimeError as error:
        pytest.exit(str(error), returncode=1)


@pytest.fixture(scope="session")
def operator(cluster: Cluster) -> Operator:
    """Serin as a user installs it, from this checkout."""
    install_serin(cluster)
    operator = Operator(cluster)
    operator.wait_ready()
    return operator


@pytest.fixture(scope="module")
def gateway_operator(cluster: Cluster, operator: Operator) -> Iterator[Operator]:
    """Serin with the right to use the Gateway API, which the cluster does not have yet; both are undone at the end."""
    with gateways.enabled(cluster, operator) as enabled:
        yield enabled


@pytest.fixture(scope="session")
def namespace(cluster: Cluster, vouched: Vouched) -> Iterator[str]:
    """A namespace under the strictest pod security standard, with a store of good, bad and faulty models."""
    name = f"serin-e2e-{uuid.uuid4().hex[:6]}"
    cluster.apply([manifests.namespace(name)])
    cluster.apply(manifests.model_store(_model_files() | vouched.files, name))
    cluster.kubectl("rollout", "status", "-n", name, f"deployment/{manifests.STORE}", "--timeout=120s")
    yield name
    _remove_namespace(cluster, name)


def _remove_namespace(cluster: Cluster, name: str) -> None:
    """Without waiting: its name is not used again."""
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def vouched(tmp_path_factory: pytest.TempPathFactory) -> Vouched:
    """A model with a signature and a reference profile beside it."""
    return vouch(models.better().data, models.split()[0], tmp_path_factory.mktemp("vouched"))


def _model_files() -> dict[str, bytes]:
    named = {
        **{model.name: model.data for model in (*models.story(), *models.lookalikes())},
        "erroring": faults.erroring(),
        "slow": faults.slow(),
        "missing-module": faults.missing_module(),
        "other-version": faults.other_version(),
        "not-a-model": faults.not_a_model(),
        "without-predict": faults.without_predict(),
        "crash-on-load": faults.crash_on_load(),
        "attack-on-load": faults.attack_on_load(),
        "never-ready": faults.never_ready(),
    }
    return {f"{name}.joblib": data for name, data in named.items()}


@pytest.fixture(scope="session")
def tools_namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace without pod security, for what tests need on the node itself."""
    name = f"serin-e2e-tools-{uuid.uuid4().hex[:6]}"
    cluster.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}])
    yield name
    _remove_namespace(cluster, name)


@pytest.fixture(scope="session")
def reaper(cluster: Cluster, tools_namespace: str, operator: Operator) -> Iterator[Reaper]:
    """What kills the operator."""
    cluster.apply([reaper_manifest(tools_namespace)])
    cluster.kubectl("wait", "-n", tools_namespace, "--for=condition=Ready", "pod/reaper", "--timeout=60s")
    with Reaper(cluster, tools_namespace, operator) as reaper:
        yield reaper


@pytest.fixture(scope="session")
def watch(cluster: Cluster, operator: Operator, namespace: str) -> Iterator[Watch]:
    """Every change of a ModelDeployment in the namespace; the operator brings their definition."""
    with Watch(cluster, namespace) as watch:
        yield watch


@pytest.fixture(scope="session")
def new_model_deployment(cluster: Cluster, watch: Watch, namespace: str) -> NewModelDeployment:
    """Names a ModelDeployment; the test applies it."""

    def make(name: str, **options: Any) -> ModelDeployment:
        return ModelDeployment(cluster, watch, namespace, name, quick_spec(**options))

    return make


@pytest.fixture(scope="session")
def serving(cluster: Cluster, new_model_deployment: NewModelDeployment, figures: Figures) -> Callable[..., Any]:
    """A context: the first model serves, and traffic flows until the end; then it is deleted.

    `prometheus` is for the spec, further options are for the traffic.
    """

    @contextmanager
    def serve(
        name: str, rps: float, model: str = "first", prometheus: str | None = None, **options: Any
    ) -> Iterator[tuple[ModelDeployment, Traffic]]:
        mdep = new_model_deployment(name, prometheus=prometheus)
        traffic = Traffic(cluster, mdep.namespace, name, figures)
        try:
            generation = mdep.serve(model)
            mdep.wait_serving(generation)
            traffic.start(rps, **options)
            yield mdep, traffic
            traffic.stop()
        finally:
            mdep.delete(wait=False)
            traffic.remove()

    return serve
