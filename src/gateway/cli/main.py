"""The verbs, and what happens to whatever they raise."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version

from cyclopts import App, CycloptsError
from rich.markup import escape

from gateway.cli.terms import Output, notes
from gateway.errors import ExitCode, GatewayError, ProductError

# gRPC's core would write its own lines to stderr, of what our error says already.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

app = App(
    name="gateway",
    help=(
        "Decides payments inside a latency budget: an ONNX fraud model on CPU, the action "
        "with the least expected cost, one durable record a call."
    ),
    version=lambda: version("decision-gateway"),
    console=Output(),
    result_action="return_value",
    suppress_keyboard_interrupt=False,
    help_epilogue=(
        "Start here: **gateway demo --once** shows everything working; "
        "**gateway check models/card-not-present** shows what a product decides.\n\n"
        "Exit codes: " + ", ".join(f"{code.value} {code.name}" for code in ExitCode)
    ),
)
# Loaded when called: a verb does not pay for the others' imports.
_VERBS = {
    "demo": "Serve two products, send them simulated payments, show what happened.",
    "init": "Write a product's folder for any ONNX classifier, from its file and its data.",
    "check": "Check products: violations, what each model must hold, derived thresholds.",
    "calibrate": "Fit maps from score to P(fraud) on labelled payments; say which to take.",
    "thresholds": "Hold derived thresholds against labels, and price review's capacity.",
    "serve": "Serve products over gRPC until SIGTERM or Ctrl-C.",
    "status": "Show how each worker of a running gateway is doing.",
    "decide": "Ask a running gateway for one decision, and say it in words.",
    "explain": "Say why a recorded decision was made, and what would have changed it.",
    "trace": "Draw where a call's time went, or list calls that were slow, stood in or failed.",
    "whatif": "Replay recorded decisions under a changed product: flips, cost, latency, stand-ins.",
    "sidecar": "Make traces, metrics and a lake of the journal, and take labels.",
    "label": "Send a file of labels, or of group attributes, to a running sidecar."
    "\n\nA row is an event, its columns go by name. Always: `kind`, `occurred_time`, "
    "`source_event_id`; `transaction_id` or `decision_id`; `product` and `source`, or the options. "
    "Where known: `reported_time` (else occurred_time), `amount_minor` (19.99 USD is 1999) with "
    "`currency`, `liable` (issuer, merchant, customer), `supersedes` (an earlier "
    "source_event_id), `subject`; for stand_in_advice `action` and `category`. Times: "
    "2026-11-18T11:06:40Z, or seconds since 1970."
    "\n\nKinds: chargeback, early_fraud_warning, refund, customer_confirmed, customer_denied, "
    "customer_contacted, step_up_passed, step_up_failed, step_up_abandoned, analyst_fraud, "
    "analyst_genuine, stand_in_advice, withdrawn."
    "\n\nA bad row is said with its line, the good ones go in, and the exit code is 9. Sent "
    "again, a file is all duplicates.",
    "erase": "Rewrite the lake without a subject, and say where the journal still has it.",
    "alerts": "Print Prometheus rules that say how fast promises' error budgets burn.",
    "evaluate": "Say whether products keep their promises, what they cost, for whom they fail.",
    "decisions": "List the decisions behind a figure of an evaluation, or tell of one decision.",
    "report": "Tell every team what an evaluation says: Markdown of 20 lines, or one HTML file.",
    "incident": "Let something go wrong, to practise on: find out why from traces and metrics.",
    "bench": "Measure the clock: lateness, goodput and stand-ins, from idle to overload.",
}
_EXAMPLES = {
    "demo": ("gateway demo --once", "gateway demo --once --json", "gateway demo --payments 100000"),
    "init": (
        "gateway init model.onnx models/cards --data labelled.csv",
        "gateway init model.onnx models/cards --data labelled.parquet --label is_fraud",
        "gateway init model.onnx models/cards --features amount,hour,country --data labelled.csv",
    ),
    "check": (
        "gateway check models/card-not-present models/card-present",
        "gateway check models/card-present --plot costs.svg",
        "gateway check --reference",
    ),
    "calibrate": (
        "gateway calibrate models/cards --data labelled.parquet",
        "gateway calibrate models/cards --data labelled.parquet --picture reliability.svg",
        "gateway calibrate models/cards --data labelled.csv --arm v8 --cluster card_id --json",
    ),
    "thresholds": (
        "gateway thresholds models/cards --data labelled.parquet",
        "gateway thresholds models/cards --data labelled.parquet --picture costs.svg",
        "gateway thresholds models/cards --data labelled.parquet --per-hour 120000 --json",
    ),
    "serve": (
        "gateway serve models/card-not-present --journal journal",
        "gateway serve models/card-present --workers 4 --affinity",
        "gateway serve models/card-present --sidecar --lake lake --evaluate 15m",
        "gateway serve models/card-present --listen unix:/run/gateway.sock --mode power",
        "gateway serve models/card-present --listen 0.0.0.0:443 --front grpcio "
        "--tls-certificate tls.pem --tls-key tls.key",
    ),
    "status": ("gateway status --journal journal", "gateway status --journal journal --json"),
    "decide": (
        "gateway decide examples/request-card-present.json",
        "gateway decide examples/request-card-present.json --explain",
        "gateway decide - --json --to 127.0.0.1:50051 < request.json",
    ),
    "explain": (
        "gateway explain 25403fb4f04844ba-00-000000000001 --journal journal",
        "gateway explain 25403fb4f04844ba-00-000000000001 --product models/card-present --json",
    ),
    "trace": (
        "gateway trace 25403fb4f04844ba-00-000000000001 --journal journal",
        "gateway trace --slow --last 15m --journal journal",
        "gateway trace --stood-in --errors --last 1h --json",
        "gateway trace 0af7651916cd43dd8448eb211c80319c --last 1d",
        "gateway trace --errors --last 7d --lake lake",
    ),
    "whatif": (
        "gateway whatif models/card-present changed/card-present --journal journal",
        "gateway whatif changed/card-present --journal journal --markdown -",
        "gateway whatif old new --labels outcomes.parquet --picture flips.svg --json",
    ),
    "sidecar": (
        "gateway sidecar --journal journal --otlp http://localhost:4317",
        "gateway sidecar --journal journal --lake lake --http 127.0.0.1:9464 --stages all",
        "gateway sidecar --journal journal --lake lake --listen 127.0.0.1:50052",
        "gateway sidecar --journal journal --lake lake --evaluate 1h",
    ),
    "label": (
        "gateway label chargebacks.csv --product card-present --source disputes",
        "gateway label groups.parquet --attributes --source core-banking --to 127.0.0.1:50052",
        "cat chargebacks.csv",
        "transaction_id,kind,occurred_time,amount_minor,currency,source_event_id",
        "t-1,chargeback,2026-11-02T09:00:00Z,1999,USD,cb-1",
    ),
    "erase": (
        "gateway erase --from - --journal journal --lake lake < subjects.txt",
        "gateway erase --from subjects.txt --journal journal --lake lake --dry-run --json",
    ),
    "alerts": (
        "gateway alerts models/card-not-present models/card-present > rules.yml",
        "gateway alerts models/card-present --out /etc/prometheus/gateway.yml",
    ),
    "evaluate": (
        "gateway evaluate --lake lake",
        "gateway evaluate --lake lake --as-of 2026-11-01 --json",
        "gateway evaluate --lake lake --watch 5m",
        "gateway evaluate --lake lake --keep",
        "gateway evaluate --lake a --lake b --engine spark://10.0.0.5:7077",
    ),
    "report": (
        "gateway report --lake lake",
        "gateway report --lake lake --html report.html",
        "gateway report --lake lake --owner operations",
        "gateway evaluate --lake lake --json | gateway report - --html report.html --markdown",
    ),
    "decisions": (
        "gateway decisions --lake lake --at /goals/3",
        "gateway evaluate --lake lake --json | gateway decisions --lake lake --at /money/1 "
        "--evaluation -",
        "gateway decisions --lake lake --product card-present --metric fraud_loss "
        "--from 2026-08-01 --to 2026-08-31 --by category=grocery --json",
        "gateway decisions 25403fb4f04844ba-00-000000000001 --lake lake",
    ),
    "incident": ("gateway incident", "gateway incident overload practice --seconds 30"),
    "bench": (
        "gateway bench overload --quick",
        "gateway bench overload --quick --json",
        "gateway bench idle beside --rounds 3 --picture bench.svg",
        "gateway bench overload --calls 200000",
    ),
    "verify": ("gateway journal verify journal", "gateway journal verify journal --json"),
    "cat": ("gateway journal cat journal --last 20", "gateway journal cat journal --json"),
    "list": ("gateway models list --journal journal", "gateway models list models/card-present"),
    "add": (
        "gateway models add models/card-present v2.onnx",
        "gateway models add models/card-present new.onnx --name v3 --mode canary --share 5%",
    ),
    "promote": (
        "gateway models promote models/card-present v2 --dry-run",
        "gateway models promote models/card-present v2 --keep-as-shadow",
    ),
    "rollback": (
        "gateway models rollback models/card-present",
        "gateway models rollback models/card-present --to 7 --journal journal",
    ),
    "reload": ("gateway models reload --journal journal --wait 30",),
    "hypothesis list": ("gateway hypothesis list --lake lake",),
    "hypothesis start": ("gateway hypothesis start fewer-insults --lake lake",),
    "hypothesis show": (
        "gateway hypothesis show fewer-insults --lake lake",
        "gateway hypothesis show fewer-insults --lake lake --keep",
        "gateway hypothesis show fewer-insults --lake lake --as-of 2026-11-01 --json",
    ),
    "hypothesis stop": ("gateway hypothesis stop fewer-insults --lake lake",),
}


def _examples(verb: str) -> str:
    return "Examples:\n\n" + "\n".join(f"    {line}" for line in _EXAMPLES[verb])


for _verb, _help in _VERBS.items():
    app.command(f"gateway.cli.{_verb}:{_verb}", help=_help, help_epilogue=_examples(_verb))
_journal = App(name="journal", help="Verify or print the journal, the record of every call.")
for _verb, _help in {
    "verify": "Read every record and say whether any is missing or damaged.",
    "cat": "Print the records: one row a call, or one JSON object a line.",
}.items():
    _journal.command(f"gateway.cli.journal:{_verb}", help=_help, help_epilogue=_examples(_verb))
app.command(_journal)
_models = App(
    name="models",
    help="List the generations of products, add a challenger, promote it, go back.",
    help_epilogue="Examples:\n\n    gateway models list --journal journal\n"
    "    gateway models add models/card-present v2.onnx\n"
    "    gateway models promote models/card-present v2 --dry-run\n"
    "    gateway models promote models/card-present v2 --keep-as-shadow\n"
    "    gateway models reload --journal journal\n"
    "    gateway models rollback models/card-present",
)
for _verb, _help in {
    "list": "Show what is served of each product, what was refused and why, and what was.",
    "add": "Put a new model beside the champion, as a shadow or a canary: its file is copied "
    "and pinned.",
    "promote": "Let a challenger decide: edits product.yaml, keeps its comments, raises its "
    "generation. What does not load, or fails a gate, is not written.",
    "rollback": "Put back what a product's folder held before, as a new generation. Twice goes "
    "back and forth. Nothing is overwritten: a file of another content keeps its name.",
    "reload": "Let a running gateway look at its folders now, and say what came of it. Exit code "
    "9 where a change is refused.",
}.items():
    _called = "list_" if _verb == "list" else _verb
    _models.command(
        f"gateway.cli.models:{_called}", name=_verb, help=_help, help_epilogue=_examples(_verb)
    )
app.command(_models)

_hypothesis = App(
    name="hypothesis",
    help="Start hypotheses that products declare, and say what came of them.",
    help_epilogue="Examples:\n\n    gateway hypothesis list --lake lake\n"
    "    gateway hypothesis start fewer-insults --lake lake\n"
    "    gateway hypothesis show fewer-insults --lake lake",
)
for _verb, _help in {
    "list": "List what products of a lake declare, what was started, and what came of it.",
    "start": "Freeze a hypothesis as it is declared now. Its first day is the next one (UTC).",
    "show": "Say what is known of a started hypothesis: ship, stop, continue, undecided, invalid.",
    "stop": "End a hypothesis, and keep what is known of it now.",
}.items():
    _called = "list_" if _verb == "list" else _verb
    _hypothesis.command(
        f"gateway.cli.hypothesis:{_called}",
        name=_verb,
        help=_help,
        help_epilogue=_examples(f"hypothesis {_verb}"),
    )
app.command(_hypothesis)


def main(arguments: list[str] | None = None) -> None:
    """Run one command and exit with its code."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Run one command. Returns its exit code."""
    code = int(ExitCode.OK)
    try:
        code = _outcome(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (`| head`) has seen enough. Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def _outcome(arguments: list[str]) -> int:
    try:
        return int(app(arguments, exit_on_error=False, print_error=False) or ExitCode.OK)
    except CycloptsError as error:
        _complain(str(error), "gateway --help, or gateway COMMAND --help")
        return ExitCode.USAGE
    except ProductError as error:
        for violation in error.violations:
            notes.print(f"[red]Error:[/red] {escape(str(violation))}")
        count = len(error.violations)
        notes.print(f"{count} violation{'s' if count != 1 else ''}.")
        notes.print("Try: gateway check --reference lists every key and what it may be.")
        return error.exit_code
    except GatewayError as error:
        _complain(str(error), error.hint)
        return error.exit_code
    except KeyboardInterrupt:
        notes.print("Interrupted.")
        return ExitCode.INTERRUPTED


def _complain(what: str, hint: str) -> None:
    notes.print(f"[red]Error:[/red] {escape(what)}")
    if hint:
        notes.print(f"Try: {escape(hint)}")
