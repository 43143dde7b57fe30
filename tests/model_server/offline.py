"""Serves a model in a network namespace that has nothing but its own loopback, and tells what wanted to leave it.

    unshare --net python -m tests.model_server.offline MODEL [PROCESSES]

The kernel counts for each namespace what a program, native code too, wanted to send where no route leads. The command
prints, as JSON, how much that was from before the server started until it had ended.
"""

import fcntl
import json
import socket
import struct
import sys
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton
from tests.model_server.serving import infer, infer_body, outputs, serving

ROW = [5.1, 3.5, 1.4, 0.2]
# Addresses that are nobody's, kept for documentation.
_NOWHERE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
_SIOCSIFFLAGS, _IFF_UP_AND_RUNNING = 0x8914, 0x41


def use(model: Path, processes: str) -> None:
    """Serve it, ask for what there is to ask, and let it drain."""
    extra = ("--grpc-port", "0", "--processes", processes, "--drain-seconds", "1")
    with serving(model, *extra) as server, server.client() as client:
        for _ in range(100):
            token = outputs(infer(client, infer_body(ROW)))["prediction_id"][0]
        label = [{"prediction_id": token, "label": 0}]
        assert client.post("/v2/models/m/feedback", json=label).json()["accepted"] == 1
        for path in ("/v2", "/v2/models/m", "/v2/health/ready", "/metrics", "/openapi.json"):
            assert client.get(path).status_code == 200
        port = next(line["port"] for line in server.log_lines() if line["message"] == "listening for gRPC")
        rows = triton.InferInput("x", [1, len(ROW)], "FP64")
        rows.set_data_from_numpy(np.array([ROW]))
        with triton.InferenceServerClient(f"127.0.0.1:{port}") as caller:
            assert caller.infer("m", [rows]).as_numpy("predict").shape == (1,)
        server.terminate()
        assert server.process.wait(timeout=30) == 0


def outgoing() -> int:
    """What was sent in this namespace where no route leads, and UDP messages, as look-ups of names are."""
    counts = dict(line.split() for line in Path("/proc/net/snmp6").read_text().splitlines())
    lines = [line.split() for line in Path("/proc/net/snmp").read_text().splitlines()]
    for names, values in zip(lines[::2], lines[1::2], strict=True):  # pairs of lines: "Ip: A B", "Ip: 1 2"
        counts |= {names[0] + name: value for name, value in zip(names[1:], values[1:], strict=True)}
    return sum(
        int(counts[name]) for name in ("Ip:OutNoRoutes", "Udp:OutDatagrams", "Ip6OutNoRoutes", "Udp6OutDatagrams")
    )


def knock() -> None:
    """Try to reach somebody outside, by both families."""
    for family, address in _NOWHERE:
        with socket.socket(family) as one:
            try:
                one.connect((address, 80))
            except OSError:
                continue
            raise AssertionError(f"{address} was reached: this is no namespace of its own")


def main() -> None:
    model, processes = Path(sys.argv[1]), sys.argv[2]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        fcntl.ioctl(one, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", _IFF_UP_AND_RUNNING))
    before = outgoing()
    use(model, processes)
    served = outgoing()
    knock()
    print(json.dumps({"server": served - before, "knocks": outgoing() - served}))


if __name__ == "__main__":
    main()
