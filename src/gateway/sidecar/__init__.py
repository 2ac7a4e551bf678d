"""The sidecar wing: what is made of the journal, in a process of its own.

    call        a call with its reply and its shadow scores; batches of them    pure
    verdict     what is remarkable about a call, and when its stages ended      pure
    attributes  pieces of OTLP messages as bytes                                pure
    spans       calls as OTLP spans                                             pure
    collector   where spans go, from OpenTelemetry's environment variables      pure
    otlp        sends them there, as often as it takes

Nothing here is imported by the serving wing, and nothing here imports it: they meet in `journal`.
"""
