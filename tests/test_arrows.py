"""The house's arrows: which room may know which, and who may know the outside."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "gateway"

GENERATED = (SOURCE / "v1", SOURCE / "inference")

ROOMS = {
    "errors": set(),
    "pan": set(),
    "v1": set(),
    "inference": set(),
    "product": {"errors"},
    "decide": {"product", "errors"},
    "journal": {"errors"},
    "model": {"decide", "product", "errors", "pan"},
    "serve": {
        *("model", "verify", "decide", "product", "journal", "errors", "pan", "v1", "inference"),
    },
    "demo": {"product", "errors"},
    "scaffold": {"model", "evaluate", "product", "errors"},
    "evaluate": {"decide", "product", "errors"},
    "report": {"errors"},
    "verify": {"model", "scaffold", "evaluate", "decide", "product", "errors"},
    "bench": {"model", "errors", "v1"},
    "sidecar": {"journal", "product", "decide", "model", "report", "errors", "pan", "v1"},
    "cli": {
        *("serve", "model", "decide", "product", "journal", "demo", "scaffold", "bench"),
        *("evaluate", "report", "verify", "sidecar", "errors", "v1"),
    },
    "__main__": {"cli"},
    "__init__": set(),
}
"""What each room may import of the others."""

SERVING = {
    "fronts": set(),
    "crew": {"fronts"},
    "inference": {"hall", "crew", "fronts"},
    "hall": {"inference", "crew", "fronts"},
    "succession": {"hall", "crew"},
}
"""What each room of the serving wing may import of the wing; its processes put them together."""

SIDECARS_MODEL = "model.registry"
"""The sidecar reads what was served; it opens no model."""

ONLY_IN = {
    "onnxruntime": {"model/runtime.py"},
    "onnx": {"model/", "bench/product.py"},
    "hpack": {"bench/frames.py"},
    "pygrpc_native": {"serve/fronts/native.py"},
    "grpc": {"serve/", "sidecar/", "cli/", "v1/", "inference/"},
    "grpc_health": {"serve/", "sidecar/feedback/"},
    "grpc_reflection": {"serve/", "sidecar/feedback/"},
    "sqlite3": {"sidecar/feedback/store.py"},
    "psutil": {"cli/status.py"},
    "pyarrow": {
        "scaffold/",
        "sidecar/",
        "cli/evaluate.py",
        "cli/lake_terms.py",
        "evaluate/engine.py",
        "evaluate/spark.py",
    },
    "pydantic": {"product/"},
    "ruamel": {"product/"},
    "rich": {"cli/"},
    "cyclopts": {"cli/"},
    "prometheus_client": {"sidecar/", "cli/sidecar.py", "cli/sidecar_http.py"},
    "opentelemetry": {"sidecar/"},
    "duckdb": {"evaluate/engine.py"},
    "pyspark": {"evaluate/spark.py", "cli/spark_session.py"},
    "sqlglot": {"evaluate/dialect.py", "cli/spark_session.py"},
}
"""Where the outside may be known."""

PURE = ("product", "decide", "evaluate", "report", "pan")
IMPURE = {
    *("os", "io", "time", "random", "secrets", "socket", "threading", "asyncio", "logging"),
    *("subprocess", "tempfile", "shutil", "pathlib"),
}


def imports(source: str) -> Iterator[str]:
    """Yield the modules that a file imports, at whatever depth."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the arrows"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def broken(file: str, source: str) -> list[str]:
    """Return what a file imports against the rules; `file` is relative to src/gateway."""
    room = file.partition("/")[0].removesuffix(".py")
    wrong: list[str] = []
    for module in imports(source):
        top, _, rest = module.partition(".")
        if top == "gateway":
            other = rest.partition(".")[0]
            if room == "sidecar" and other == "model" and not rest.startswith(SIDECARS_MODEL):
                wrong.append(f"{file}: of model, {room} may know the registry alone")
            if other and other != room and other not in ROOMS[room]:
                wrong.append(f"{file}: {room} must not know {other}")
            if room == other == "serve":
                wrong += within_serve(file, rest)
        elif top in ONLY_IN and not any(file.startswith(place) for place in ONLY_IN[top]):
            wrong.append(f"{file}: {top} stays in {sorted(ONLY_IN[top]) or 'no room yet'}")
        elif room in PURE and top in IMPURE and module != "pathlib.PurePosixPath":
            wrong.append(f"{file}: {room} is pure, {top} is not")
    return wrong


def within_serve(file: str, imported: str) -> list[str]:
    """Return what a file of the serving wing imports of it against the rules."""
    inside, other = file.split("/")[1], imported.partition(".")[2].partition(".")[0]
    if inside not in SERVING or other in {inside, *SERVING[inside]}:
        return []
    return [f"{file}: in serve, {inside} must not know {other or 'its door'}"]


def files() -> list[Path]:
    return sorted(path for path in SOURCE.rglob("*.py") if path.parent not in GENERATED)


def test_no_file_imports_against_the_arrows() -> None:
    wrong = [
        line
        for path in files()
        for line in broken(str(path.relative_to(SOURCE)), path.read_text(encoding="utf-8"))
    ]
    assert wrong == []
    assert len(files()) > 40


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("product/parse.py", "import grpc"),
        ("decide/policy.py", "import onnxruntime"),
        ("decide/policy.py", "import random"),
        ("decide/policy.py", "from gateway.model import Generation"),
        ("journal/writer.py", "from gateway import serve"),
        ("serve/hall/hall.py", "import onnxruntime as ort"),
        ("serve/hall/hall.py", "def f():\n    from gateway.cli import main"),
        ("serve/fronts/front.py", "from gateway.serve.hall import hall"),
        ("serve/crew/live.py", "from gateway.serve import supervisor"),
        ("serve/hall/hall.py", "def f():\n    import gateway.serve.succession.watch"),
        ("serve/worker.py", "import gateway.demo.world"),
        ("demo/world.py", "from grpc import aio"),
        ("product/parse.py", "import os.path"),
        ("serve/worker.py", "from gateway.bench import load"),
        ("bench/load.py", "from gateway.serve import hall"),
        ("bench/connection.py", "import grpc"),
        ("serve/supervisor.py", "import psutil"),
        ("evaluate/__init__.py", "import os"),
        ("evaluate/counts.py", "from pyspark.sql import SparkSession"),
        ("report/page.py", "import pathlib"),
        ("report/page.py", "from gateway.sidecar.lake import Lake"),
        ("evaluate/__init__.py", "from gateway.model import Generation"),
        ("verify/labelled.py", "import pyarrow"),
        ("serve/hall/hall.py", "from gateway.sidecar.tail import call"),
        ("journal/reader.py", "from gateway.sidecar.tail import tail"),
        ("sidecar/tail/call.py", "from gateway.serve import hall"),
        ("sidecar/tail/call.py", "from gateway.model import Generation"),
        ("serve/hall/hall.py", "from opentelemetry.proto.trace.v1 import trace_pb2"),
    ],
)
def test_a_forbidden_import_is_found(file: str, line: str) -> None:
    """The test of the test: the real file with one line more breaks the rule."""
    source = (SOURCE / file).read_text(encoding="utf-8")
    assert broken(file, source) == []
    assert broken(file, f"{source}\n{line}\n") != []


def test_the_supervisor_loads_neither_a_model_nor_a_front() -> None:
    """It must start at once, stay small, and outlive whatever a worker dies of."""
    code = (
        "import gateway.cli.main, gateway.cli.serve, sys;"
        "print(*{m.partition('.')[0] for m in sys.modules})"
    )
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    heavy = {"onnxruntime", "onnx", "grpc", "pygrpc_native", "numpy", "pydantic", "google"}
    assert "cyclopts" in shown.stdout.split()
    assert heavy & set(shown.stdout.split()) <= {"google"}  # google.crc32c, the journal's
    assert "google.protobuf" not in shown.stdout


def test_onnx_runtime_is_loaded_with_its_telemetry_off() -> None:
    code = (
        "from gateway.model import Generation; import os, sys;"
        "assert os.environ['ORT_DISABLE_TELEMETRY'] == '1';"
        "assert 'onnxruntime' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    first = (SOURCE / "model" / "runtime.py").read_text(encoding="utf-8")
    assert first.index("ORT_DISABLE_TELEMETRY") < first.index("import onnxruntime")
