"""`gateway decide`."""

from __future__ import annotations

import json as json_codec
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import grpc
from cyclopts import Parameter
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from google.rpc.error_details_pb2 import BadRequest
from grpc_status import rpc_status

from gateway.cli.terms import Json, microseconds, money, notes, out
from gateway.errors import ExitCode, GatewayError, RefusedError, UnreachableError, UsageError
from gateway.product import minor_per_major
from gateway.v1.decision_pb2 import Action, DecideRequest, DecideResponse, StandIn
from gateway.v1.decision_pb2_grpc import DecisionServiceStub


def decide(
    request: Annotated[str, Parameter(help="JSON file of one DecideRequest, or - for stdin.")],
    *,
    to: Annotated[str, Parameter(help="Where the gateway listens.")] = "127.0.0.1:50051",
    timeout_ms: Annotated[float, Parameter(help="The caller's own deadline.")] = 1000.0,
    json: Json = False,
) -> int:
    """Ask a running gateway for one decision, and say it in words.

    The JSON has the request's fields; features may stand as plain numbers and texts:
    `{"product": "card-present", "transaction_id": "t-1", "amount": 1999, "currency": "USD",
    "category": "5411", "features": {"entry_mode": "chip"}}`. Without an event_time, now.
    """
    asked = _request(request)
    with grpc.insecure_channel(to) as channel:
        try:
            stub = DecisionServiceStub(channel)  # type: ignore[no-untyped-call]
            response = stub.Decide(asked, timeout=timeout_ms / 1000)
        except grpc.RpcError as error:
            raise _refused(error, to) from None
    if json:
        print(json_codec.dumps(as_json(response), indent=2))
        return ExitCode.OK
    in_words(asked, response)
    return ExitCode.OK


def as_json(response: DecideResponse) -> dict[str, Any]:
    """Return a response as JSON values: every field, also those at their default."""
    return MessageToDict(
        response, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def in_words(asked: DecideRequest, response: DecideResponse) -> None:
    """Print one decision as a person would say it."""
    unit = minor_per_major(asked.currency)
    amount = money(asked.amount, asked.currency, unit)
    action = _spoken(Action.Name(response.action))
    out.print(f"[bold]{action}[/bold] {amount} ({asked.product}, {asked.transaction_id})")
    out.print(f"  {why(response)}")
    if response.expected_costs:
        for item in response.expected_costs:
            cost = f"{money(item.cost, asked.currency, unit):>16}"
            chosen = " ◀" if item.action == response.action else ""
            out.print(
                f"    {_spoken(Action.Name(item.action)):<8} is expected to cost {cost}{chosen}"
            )
    used = microseconds(response.elapsed_us)
    recorded = f"decision {response.decision_id}" if response.recorded else "NOT RECORDED"
    out.print(f"  {used} of {microseconds(response.budget_us)}; {recorded}", style="dim")


def why(response: DecideResponse) -> str:
    """Say in one sentence why this action."""
    if response.stand_in:
        reason = _spoken(StandIn.Name(response.stand_in))
        return f"The model did not decide ({reason}): the product's stand-in did."
    percent = f"P(fraud) is {response.probability:.3%}"
    if not response.HasField("threshold"):
        return f"{percent}; no probability would change the action for this payment."
    side = "below" if response.probability < response.threshold else "above"
    return f"{percent}, {side} the threshold of {response.threshold:.3%} for this payment."


def _spoken(name: str) -> str:
    return name.lower().replace("_", " ")


def _request(source: str) -> DecideRequest:
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8 text"
        raise UsageError(
            f"cannot be read: {reason}", subject=source, hint="Name a JSON file, or - for stdin."
        ) from None
    try:
        values = json_codec.loads(text)
        if not isinstance(values, dict):
            raise UsageError("must be a JSON object", subject=source)
        features = values.get("features")
        if isinstance(features, dict):
            values["features"] = {name: _feature(value) for name, value in features.items()}
        asked = ParseDict(values, DecideRequest())
    except json_codec.JSONDecodeError as error:
        raise UsageError(f"is no JSON: {error}", subject=source) from None
    except ParseError as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"is no DecideRequest: {reason}",
            subject=source,
            hint=f"Its fields: {', '.join(DecideRequest.DESCRIPTOR.fields_by_name)}.",
        ) from None
    if not asked.HasField("event_time"):
        asked.event_time.FromNanoseconds(time.time_ns())
        notes.print("event_time is not given: now.")
    return asked


def _feature(value: Any) -> Any:
    if isinstance(value, bool | int | float):
        return {"number": float(value)}
    return {"text": value} if isinstance(value, str) else value


def _refused(error: Any, to: str) -> GatewayError:
    code = error.code()
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNIMPLEMENTED):
        return UnreachableError(
            "no gateway answers", subject=to, hint="Start one: gateway serve models/card-present"
        )
    status = rpc_status.from_call(error)
    violations = []
    for detail in status.details if status is not None else ():
        bad = BadRequest()
        if detail.Unpack(bad):
            violations += [f"  {v.field} {v.description}" for v in bad.field_violations]
    what = (
        "\n".join((f"{code.name}:", *violations))
        if violations
        else f"{code.name}: {error.details()}"
    )
    return RefusedError(what, subject=to, hint="gateway check DIR lists the features.")
