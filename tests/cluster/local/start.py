"""Starting a cluster from nothing: files, namespaces, then the components, each after those that it needs."""

import socket
from collections.abc import Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path

from tests.cluster.report import say

from . import certs, components, configs, containerd, dns, namespace, pause, readiness
from .api import Api
from .cgroups import CgroupTree
from .components import Component
from .health import await_check
from .layout import Layout
from .processes import Daemon


def start(layout: Layout, binaries: Path) -> None:
    """Start everything and return when pods can run and resolve names."""
    say(f"starting cluster {layout.name}")
    _write_files(layout)
    CgroupTree(layout.name).create()
    holder = _make_namespaces(layout, binaries)
    with namespace.inside(holder) as network:
        foundations = components.foundations(layout, binaries)
        _start_and_await(layout, foundations, network)
        _load_pause_image(layout, binaries)
        _start_forward(layout, holder, binaries)
        _start_and_await(layout, [components.api_server(layout, binaries)], network)
        say("the API server is ready")
        dns.apply(Api(layout))
        _start_and_await(layout, components.managers_and_node(layout, binaries), network)
        say("all components are well; waiting for the node and cluster DNS")
        for condition in readiness.conditions(layout, network):
            await_check(Daemon(layout, condition.daemon), condition.check)
    server = Api(layout).server
    configs.write_private(layout.kubeconfig, configs.kubeconfig(layout, "admin", server))


def _write_files(layout: Layout) -> None:
    for directory in (layout.logs, layout.pids, layout.config, layout.images):
        directory.mkdir(parents=True)
    certs.make_all(layout)
    configs.write_component_kubeconfigs(layout)
    configs.write_kubelet(layout)
    configs.write_kube_proxy(layout)
    configs.write_corefile(layout)
    containerd.write_config(layout)


def _make_namespaces(layout: Layout, binaries: Path) -> int:
    """Return the process id that the namespaces are known by."""
    namespace.start_holder(layout, binaries / "pause")
    holder = namespace.holder(layout)
    await_check(holder, lambda: namespace.require_set_up(layout))
    pid = holder.pid
    assert pid is not None, "it was there a moment ago and does nothing"
    layout.network_file.write_text(namespace.identity(pid))
    return pid


def _start_and_await(layout: Layout, group: Sequence[Component], network: Executor) -> None:
    for component in group:
        Daemon(layout, component.name).start([*namespace.enter(layout), *component.argv])
    for component in group:
        await_check(Daemon(layout, component.name), partial(namespace.call, network, component.check))


def _start_forward(layout: Layout, holder: int, binaries: Path) -> None:
    """Open the API server's port on the machine; the socket is made here, so that its number is known before."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        layout.port_file.write_text(str(listener.getsockname()[1]))
        argv = components.forward_argv(binaries, listener.fileno(), Path(f"/proc/{holder}/ns/net"))
        Daemon(layout, "forward").start(argv, pass_fds=[listener.fileno()])


def _load_pause_image(layout: Layout, binaries: Path) -> None:
    archive = layout.images / "pause.tar"
    pause.write_archive(binaries / "pause", archive)
    containerd.import_image(layout, archive)
    archive.unlink()
