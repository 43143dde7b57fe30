"""Write the Python messages of the .proto files here into the package: `make generate`.

They live in a descriptor pool of their own. In the common one they would clash with those of a client library for
the same protocol, which a model, or a test, may use in the same process.
"""

import tempfile
from pathlib import Path

from grpc_tools import protoc

HERE = Path(__file__).resolve().parent
MESSAGES = HERE.parent / "src" / "serin_server" / "grpc_service" / "messages"


def generated() -> dict[Path, str]:
    """The text of each file, by its path."""
    with tempfile.TemporaryDirectory() as directory:
        protos = sorted(path.name for path in HERE.glob("*.proto"))
        outputs = [f"--python_out={directory}", f"--pyi_out={directory}"]
        if protoc.main(["protoc", f"--proto_path={HERE}", *outputs, *protos]) != 0:
            raise SystemExit("protoc failed: it says why above")
        return {MESSAGES / path.name: _own_pool(path.read_text()) for path in sorted(Path(directory).iterdir())}


def _own_pool(text: str) -> str:
    return text.replace("_descriptor_pool.Default()", "_descriptor_pool.DescriptorPool()")


if __name__ == "__main__":
    for path, text in generated().items():
        path.write_text(text)
