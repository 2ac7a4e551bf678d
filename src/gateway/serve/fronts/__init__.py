"""The gRPC transport, and nothing else: calls in, as batches; replies out, by call id.

    front          what a front is
    native         HTTP/2 in Rust, off the GIL: the usual one
    grpcio         the reference, with TLS
    reflection     server reflection, behind both
    socket_folder  where `native` and reflection meet: made, and cleared away
    address        where to listen, unless that would be open to others

A front knows no product; of the wing it knows no other room.
"""
