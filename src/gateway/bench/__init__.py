"""The load generator and its scenarios: what a payment system would see, measured.

frames       HTTP/2 and gRPC bytes                                                pure
schedule     when each call is to be sent                                         pure
connection   one HTTP/2 connection, as a client of many small calls
pool         the generator's connections
generator    sends the schedule, whatever the server does; a process of its own
witness      notes when a core did not run what should have run; a process of its own
product      the benchmark's models and products, scaled to this machine
traffic      distinct requests, encoded before the load begins
load         one schedule against one server, with generator and witnesses
count        calls -> late, shed, stood in, percentiles                           pure
interval     what a change costs the calls in it, beside those around it          pure
machine      cores, and what the figures were measured on
rig          a server, and the loads of one scenario
outcome      what a scenario found, and what every load is held to                pure
editor       one product's folder, edited while it is served
phase        swaps under load, read                                               pure
capacity     decisions in time a second
swap         another model every few seconds, a large one, a shadow
scenario     idle, overload, light, beside, burst, restart, and those above

What never happens: the generator waits for an answer before it sends the next call of an
open schedule; a percentile counts from anything but the scheduled time; a call is retried,
but where HTTP/2 says that the server never looked at it.
"""
