"""A session of Spark, for `--engine spark://…`; or what is missing where there is none."""

from __future__ import annotations

import os
import re
import shutil
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

from gateway.errors import GatewayError, UnreachableError, UsageError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_LOCAL = re.compile(r"(?:spark://)?(local(?:\[(?:\*|[1-9]\d*)\])?)")
_CLUSTER = re.compile(r"spark://[\w.-]+:\d+(?:,[\w.-]+:\d+)*")

_HERE = {
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.memory": "3g",
    # Small tasks would cost more to start than to do.
    "spark.sql.shuffle.partitions": "8",
    "spark.sql.sources.parallelPartitionDiscovery.threshold": "10000",
}
"""Of a Spark in this process. A cluster has its own settings (SPARK_CONF_DIR)."""

_NO_MORE: Mapping[str, str] = {}
_QUIET = {
    "spark.app.name": "gateway evaluate",
    "spark.log.level": "ERROR",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}


def master_of(engine: str) -> str:
    """Return the master that --engine names, as Spark calls it. Raises UsageError."""
    local = _LOCAL.fullmatch(engine)
    if local:
        return "local[*]" if local[1] == "local" else local[1]
    if _CLUSTER.fullmatch(engine):
        return engine
    raise UsageError(
        "is no engine",
        subject=f"--engine {engine}",
        hint="One of duckdb, spark://HOST:PORT, or, to try it on this machine, spark://local[2].",
    )


def session_of(engine: str, settings: Mapping[str, str] = _NO_MORE) -> SparkSession:
    """Begin a session, or return the one that this process has. `settings`: more of them.

    Raises:
        UsageError: it is no engine, or there is no Spark or no Java on this machine.
        UnreachableError: no Spark answers there.
    """
    master = master_of(engine)
    try:
        import sqlglot  # noqa: F401
        from pyspark.sql import SparkSession
    except ImportError:
        raise UsageError(
            "asks for Spark, which is not installed",
            subject=f"--engine {engine}",
            hint="pip install 'decision-gateway[spark]'; it needs Java 17 or newer.",
        ) from None
    if not _java():
        raise UsageError(
            "asks for Spark, which needs Java: there is none",
            subject=f"--engine {engine}",
            hint="Install Java 17 or newer, or set JAVA_HOME; the rest comes with "
            "pip install 'decision-gateway[spark]'.",
        )
    # PySpark's own, about versions of pandas, which nothing here asks for.
    warnings.filterwarnings("ignore", category=FutureWarning, module="pyspark")
    builder = SparkSession.builder.master(master)
    here = _HERE if master.startswith("local") else {}
    for name, value in {**_QUIET, **here, **settings}.items():
        builder = builder.config(name, value)
    try:
        return builder.getOrCreate()
    except Exception as error:  # of Java's, of the gateway to it, of the cluster's: no common kind
        raise _unreachable(engine, error) from error


def _java() -> bool:
    home = os.environ.get("JAVA_HOME")
    return shutil.which(os.path.join(home, "bin", "java") if home else "java") is not None


def _unreachable(engine: str, error: Exception) -> GatewayError:
    # Java's own words stand behind the line that says which call they are of.
    lines = [line.lstrip(": ") for line in str(error).splitlines() if line.strip()]
    said = lines[1] if len(lines) > 1 else (lines or [type(error).__name__])[0]
    return UnreachableError(
        f"Spark does not answer: {said[:200]}",
        subject=f"--engine {engine}",
        hint="Look whether its master runs, and whether its workers reach this machine.",
    )
