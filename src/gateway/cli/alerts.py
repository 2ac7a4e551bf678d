"""`gateway alerts`: rules for Prometheus, a dashboard for Grafana."""

from __future__ import annotations

import json as json_codec
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from gateway.cli.terms import Json, notes
from gateway.errors import ExitCode, UsageError
from gateway.model import read_product
from gateway.sidecar.metrics.alerts import as_yaml, rules_of
from gateway.sidecar.metrics.dashboard import dashboard_of


def alerts(
    *folders: Annotated[Path, Parameter(name="DIR", help="Folders with a product.yaml each.")],
    out: Annotated[
        Path | None, Parameter(help="Write the rules to this file instead of stdout.")
    ] = None,
    grafana: Annotated[
        Path | None,
        Parameter(help="Write a Grafana dashboard of the products to this file, to be imported."),
    ] = None,
    json: Json = False,
) -> int:
    """Print Prometheus rules for the promises of products: how fast each error budget burns.

    A page where 2 % of a promise's budget goes in an hour or 5 % in six, a ticket where 10 % goes
    in a day or in three. And a ticket where the last evaluation of the lake says that a goal is
    missed, an error budget used up or a group of customers outside the limits, and where it is old:
    of promises that need labels, that alone tells.
    """
    if not folders:
        raise UsageError("no product folder is named", hint="For example: models/card-not-present")
    products = [read_product(folder) for folder in folders]
    rules, unmeasured = rules_of(products)
    text = json_codec.dumps(rules, indent=2) + "\n" if json else as_yaml(rules, unmeasured)
    if out is None:
        print(text, end="")
    else:
        _write(out, text)
    if grafana is not None:
        _write(grafana, json_codec.dumps(dashboard_of(products), indent=2) + "\n")
        notes.print(f"Next: import {grafana} in Grafana: Dashboards, New, Import", markup=False)
    notes.print(f"Next: promtool check rules {out or 'RULES.yml'}", markup=False)
    return ExitCode.OK


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot be written: {error.strerror}", subject=str(path)) from None
