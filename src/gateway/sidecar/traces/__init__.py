"""From batches to spans at a collector.

verdict     what is remarkable about a call, and when its stages ended      pure
attributes  pieces of OTLP messages as bytes                                pure
spans       calls as OTLP spans                                             pure
collector   where spans go, from OpenTelemetry's environment variables      pure
otlp        sends them there, as often as it takes
traces      from the tail to the collector, then the checkpoint
receiver    a collector that counts, for the demo
"""
