"""The command line of the cluster for everyone: `python3 -m tests.cluster --help`."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from . import backends, images
from .backends import Backend
from .images import Build
from .report import Failure

Command = Callable[[Backend, argparse.Namespace], bool]


def main() -> int:
    arguments = _parser().parse_args()
    command: Command = arguments.command
    try:
        return 0 if command(backends.choose(), arguments) else 1
    except Failure as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; `up` clears what was started, and so does `down`", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 -m tests.cluster",
        description="A Kubernetes cluster for tests: kind where Docker is, else real components as root on Linux.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Command, does: str, *, of_cluster: bool = True) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=does, description=does)
        added.set_defaults(command=command)
        if of_cluster:
            added.add_argument("--name", default="serin", help="which cluster (default: serin)")
        return added

    add("preflight", _preflight, "say what this machine lacks; start nothing", of_cluster=False)
    add("up", _up, "start a cluster, or find it running")
    add("down", _down, "end a cluster and leave nothing behind")
    status = add("status", _status, "say how each component is; exit 0 only if all are well")
    status.add_argument("--kubeconfig", action="store_true", help="print only the path of the kubeconfig")
    add("bin-dir", _bin_dir, "print a directory that has kubectl and helm", of_cluster=False)
    build = add("build-image", _build_image, "build an image from a Dockerfile", of_cluster=False)
    build.add_argument("--tag", required=True, help="such as localhost/serin/NAME:TAG")
    build.add_argument("--file", required=True, type=Path, help="the Dockerfile")
    build.add_argument("--context", required=True, type=Path, help="the directory that COPY reads from")
    build.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    add("load-image", _load_image, "put a built image into a cluster").add_argument("tag")
    of_ours = add("images", _images, "build the images of this repository and put them into a cluster")
    of_ours.add_argument("only", nargs="*", metavar="IMAGE", help=f"some of {', '.join(images.DOCKERFILES)}; else all")
    return parser


def _preflight(backend: Backend, _: argparse.Namespace) -> bool:
    print(backend.check())
    return True


def _up(backend: Backend, arguments: argparse.Namespace) -> bool:
    backend.check()
    backend.up(arguments.name)
    return True


def _down(backend: Backend, arguments: argparse.Namespace) -> bool:
    backend.require()
    backend.down(arguments.name)
    return True


def _status(backend: Backend, arguments: argparse.Namespace) -> bool:
    if arguments.kubeconfig:
        print(backend.kubeconfig(arguments.name))
        return True
    backend.require()
    return backend.print_status(arguments.name)


def _bin_dir(backend: Backend, _: argparse.Namespace) -> bool:
    backend.check()
    print(backend.tools())
    return True


def _build_image(backend: Backend, arguments: argparse.Namespace) -> bool:
    backend.check()
    pairs = [argument.partition("=") for argument in arguments.build_arg]
    args = {name: value for name, _, value in pairs}
    backend.build_image(Build(arguments.tag, arguments.file.resolve(), arguments.context.resolve(), args))
    return True


def _load_image(backend: Backend, arguments: argparse.Namespace) -> bool:
    backend.require()
    backend.load_image(arguments.name, arguments.tag)
    return True


def _images(backend: Backend, arguments: argparse.Namespace) -> bool:
    wanted = images.ours(arguments.only)
    backend.check()
    for build in wanted:
        backend.build_image(build)
        backend.load_image(arguments.name, build.tag)
    return True


if __name__ == "__main__":
    sys.exit(main())
