"""The command line: one file a verb. `main` parses, runs, and turns errors into exit codes.

Results go to stdout, everything else to stderr. Every error is one message, what to try,
and a named exit code (`gateway.errors.ExitCode`); never a traceback.
"""

from gateway.cli.main import app, main

__all__ = ["app", "main"]
