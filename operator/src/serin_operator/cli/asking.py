"""Asks the operator for something by an annotation, through kubectl: configuration and rights are the caller's."""

import argparse
import subprocess
import time

from serin_operator.api import GROUP, PLURAL
from serin_operator.cli.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What every such command takes."""
    parser.add_argument("name", metavar="NAME", help="the ModelDeployment")
    parser.add_argument("-n", "--namespace", metavar="NAMESPACE", help="where it is, if not in the context's namespace")
    parser.add_argument("--context", metavar="CONTEXT", help="the context of the kubeconfig, if not the present one")


def ask(arguments: argparse.Namespace, annotation: str, prefix: str = "") -> None:
    """Sets the annotation to a value that is new: the time, after `prefix`. Raises InputError with kubectl's words."""
    command = ["kubectl", "annotate", f"{PLURAL}.{GROUP}", arguments.name, "--overwrite"]
    command.append(f"{annotation}={prefix}{time.time_ns() // 1_000_000}")
    for flag in ("namespace", "context"):
        if value := getattr(arguments, flag):
            command.append(f"--{flag}={value}")
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise InputError("kubectl is not on the PATH: install it, or set the annotation in another way") from None
    if done.returncode:
        raise InputError(f"kubectl: {done.stderr.strip()}")
