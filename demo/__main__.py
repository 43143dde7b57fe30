"""`python -m demo`: a cluster, Serin, three models and steady traffic; about six minutes once all is built."""

import argparse
import sys
import time

from demo import environment as env
from demo.story import MDEP, Story, UnexpectedError
from demo.view import open_screen

NAMESPACE = "serin-demo"


def main() -> int:
    """Set up, tell the story, clean up. The exit code is 0 only if all happened as it must."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave everything running, and say how to look")
    parser.add_argument("--cluster", default="serin", help="the cluster's name (default: serin)")
    arguments = parser.parse_args()
    started = time.monotonic()
    try:
        return _demo(arguments.cluster, arguments.keep, started)
    except (env.CommandError, UnexpectedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _demo(name: str, keep: bool, started: float) -> int:
    cluster, is_ours = env.ensure_cluster(name)
    had_serin = False
    try:
        env.build_and_load_images(name)
        had_serin = env.serin_is_installed(cluster)
        print("installing Serin with Helm", flush=True)
        env.install_serin(cluster)
        env.remove_namespace(cluster, NAMESPACE)
        _play(cluster, keep)
        print(f"in all             {time.monotonic() - started:.0f} s")
    finally:
        if keep:
            _how_to_look(name, cluster)
        else:
            _clean_up(name, cluster, is_ours, had_serin)
    return 0


def _play(cluster: env.Cluster, keep: bool) -> None:
    screen = open_screen()
    try:
        summary = Story(cluster, NAMESPACE, screen).play(keep_traffic=keep)
    finally:
        screen.close()
    print("\n" + "\n".join(summary.lines()))


def _clean_up(name: str, cluster: env.Cluster, is_ours: bool, had_serin: bool) -> None:
    """Remove what this run brought, and only that."""
    if is_ours:
        env.remove_cluster(name)
        return
    print(f"removing namespace {NAMESPACE}", flush=True)
    env.remove_namespace(cluster, NAMESPACE)
    if not had_serin and env.serin_is_installed(cluster):
        print("uninstalling Serin", flush=True)
        env.uninstall_serin(cluster)


def _how_to_look(name: str, cluster: env.Cluster) -> None:
    print(f"""
All that was started still runs. To look around:
  export KUBECONFIG={cluster.kubeconfig} PATH={cluster.bin_dir}:$PATH
  kubectl -n {NAMESPACE} get mdep {MDEP} -o yaml      # status.history has every decision with its evidence
  kubectl -n {NAMESPACE} get events
  kubectl -n {NAMESPACE} get pods
  kubectl -n {NAMESPACE} logs traffic --tail=1
To end it: make cluster-down CLUSTER={name}""")


if __name__ == "__main__":
    sys.exit(main())
