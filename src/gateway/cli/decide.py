"""`gateway decide`."""

from __future__ import annotations

import json as json_codec
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import grpc
from cyclopts import Parameter
from cyclopts.validators import Number
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from google.rpc.error_details_pb2 import BadRequest
from grpc_status import rpc_status
from rich.markup import escape

from gateway.cli.terms import Json, microseconds, money, notes, out
from gateway.errors import ExitCode, GatewayError, RefusedError, UnreachableError, UsageError
from gateway.product import minor_per_major
from gateway.v1.decision_pb2 import Action, DecideRequest, DecideResponse, StandIn
from gateway.v1.decision_pb2_grpc import DecisionServiceStub

TIMEOUT_MS_MAX = 600_000
_UNREACHED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNIMPLEMENTED)


def decide(
    request: Annotated[
        str,
        Parameter(
            name="REQUEST",
            allow_leading_hyphen=True,
            help="JSON file of one DecideRequest, such as examples/request-card-present.json; "
            "- for stdin.",
        ),
    ],
    /,
    *,
    to: Annotated[str, Parameter(help="HOST:PORT or unix:PATH of the gateway.")] = (
        "127.0.0.1:50051"
    ),
    timeout_ms: Annotated[
        float,
        Parameter(validator=Number(gt=0, lte=TIMEOUT_MS_MAX), help="The caller's own deadline."),
    ] = 1000.0,
    explain: Annotated[
        bool,
        Parameter(
            negative="",
            show_default=False,
            help="Say why, and what would have changed it, from the product's folder.",
        ),
    ] = False,
    product: Annotated[
        tuple[Path, ...],
        Parameter(
            negative="",
            show_default=False,
            help="With --explain: the product's folder. Where left out, the one of its name in "
            "., ./* or ./models/*.",
        ),
    ] = (),
    json: Json = False,
) -> int:
    """Ask a running gateway for one decision, and say it in words.

    The JSON has the request's fields; features may stand as plain numbers and texts:
    `{"product": "card-present", "transaction_id": "t-1", "amount": 1999, "currency": "USD",
    "category": "5411", "features": {"entry_mode": "chip"}}`. Without an event_time, now.
    """
    target = target_of(to)
    asked = _request(request)
    if product and not explain:
        raise UsageError("--product tells nothing by itself", hint="Add --explain.")
    show = _explainer(asked, product, json=json) if explain else None
    with grpc.insecure_channel(target) as channel:
        try:
            stub = DecisionServiceStub(channel)  # type: ignore[no-untyped-call]
            response = stub.Decide(asked, timeout=timeout_ms / 1000)
        except grpc.RpcError as error:
            raise _failed(error, to, timeout_ms) from None
    if show is not None:
        show(response)
    elif json:
        print(json_codec.dumps(as_json(response), indent=2))
    else:
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
    payment = escape(f"{asked.product}, {asked.transaction_id}")
    out.print(f"[bold]{action}[/bold] {amount} ({payment})", soft_wrap=True)
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


def _explainer(
    asked: DecideRequest, folders: Sequence[Path], *, json: bool
) -> Callable[[DecideResponse], None]:
    """Load the product's folder, and return what shows an answer with its explanation."""
    # Loaded when asked for: an answer alone does without ONNX Runtime.
    from gateway.cli.explain import show
    from gateway.cli.told import Case, source_of

    source = source_of(asked.product, folders)
    return lambda response: show(Case(asked, response), source, json=json)


def _spoken(name: str) -> str:
    return name.lower().replace("_", " ")


def target_of(to: str) -> str:
    """Check an address before gRPC does: it would try to look up anything as a host."""
    host, _, port = to.rpartition(":")
    is_socket = to.startswith("unix:") and to != "unix:"
    if is_socket or (host and not set(host) & set(" /") and port.isdecimal() and int(port) < 65536):
        return to
    raise UsageError("is no address", subject=repr(to), hint="Write HOST:PORT or unix:PATH.")


def _request(source: str) -> DecideRequest:
    values = _json(source)
    features = values.get("features")
    if isinstance(features, dict):
        named = {name: _feature(name, value, source) for name, value in features.items()}
        values = {**values, "features": named}
    try:
        asked = ParseDict(values, DecideRequest())
    except ParseError as error:
        reason = str(error).splitlines()[0][:200]
        raise UsageError(
            f"is no DecideRequest: {reason}",
            subject=source,
            hint=f"Its fields: {', '.join(DecideRequest.DESCRIPTOR.fields_by_name)}.",
        ) from None
    if not asked.HasField("event_time"):
        asked.event_time.FromNanoseconds(time.time_ns())
        notes.print("event_time is not given: now.")
    return asked


def _json(source: str) -> dict[str, Any]:
    try:
        content = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
        values = json_codec.loads(content.decode("utf-8-sig"))
    except OSError as error:
        raise UsageError(
            f"cannot be read: {error.strerror}",
            subject=source,
            hint="Name a JSON file, or - for stdin.",
        ) from None
    except (ValueError, RecursionError) as error:
        reason = "it nests too deep" if isinstance(error, RecursionError) else str(error)
        raise UsageError(
            f"is no JSON: {reason}", subject=source, hint="See examples/request-card-present.json."
        ) from None
    if not isinstance(values, dict):
        raise UsageError(
            "must be a JSON object", subject=source, hint="See examples/request-card-present.json."
        )
    return values


def _feature(name: str, value: Any, source: str) -> dict[str, float | str]:
    """Return a FeatureValue as its JSON; one that is written out already stays as it is."""
    match value:
        case str():
            return {"text": value}
        case bool() | int() | float() if abs(value) <= sys.float_info.max:
            return {"number": float(value)}
        case {"number": int() | float() as given} | {"text": str() as given} if len(value) == 1:
            return _feature(name, given, source)
    raise UsageError(
        f"features[{name}] must be a finite number or a text",
        subject=source,
        hint="A feature that is not known is left out.",
    )


def _failed(error: Any, to: str, timeout_ms: float) -> GatewayError:
    """Turn a gRPC error into ours: nobody answered, or somebody refused."""
    code = error.code()
    if code in _UNREACHED:
        return UnreachableError(
            "no gateway answers", subject=to, hint="Start one: gateway serve models/card-present"
        )
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return UnreachableError(
            f"no answer came within {timeout_ms:g} ms",
            subject=to,
            hint="Give it longer with --timeout-ms, or look whether the gateway is overloaded.",
        )
    status = rpc_status.from_call(error)
    violations = []
    for detail in status.details if status is not None else ():
        bad = BadRequest()
        if detail.Unpack(bad):
            violations += [f"  {v.field} {v.description}" for v in bad.field_violations]
    if not violations:
        return RefusedError(f"{code.name}: {error.details()}", subject=to)
    return RefusedError(
        "\n".join((f"{code.name}:", *violations)),
        subject=to,
        hint="Mend the request; the product's product.yaml says what it takes.",
    )
