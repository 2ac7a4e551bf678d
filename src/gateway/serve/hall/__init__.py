"""The straight hall, on one thread: what becomes of a call between its arrival and its reply.

hall        admit ▶ lanes ▶ encode ▶ infer ▶ decide ▶ record ▶ reply
admit       a caller's bytes -> a payment that can be decided, or a refusal
head        a request without its features: what a stand-in needs
lane        what waits for one arm's model, and what that will cost               pure
estimate    how long a step will take, before it is taken                         pure
circuit     a model that fails again and again is left alone                      pure
scoring     payments -> rows -> scores
annex       heavy models, on threads beside the hall
shadow      models that did not decide score afterwards
answer      what one payment gets
recorder    responses and records laid out, appended, then replied
response    a decision -> DecideResponse bytes
record      answers and refusals -> journal entries
health      grpc.health.v1, answered by the hall itself
"""
