"""A low-latency inference gateway that turns fraud probabilities into decisions.

The map of the house; `README.md` beside this file says which rooms may know which.

    errors     one tree of errors, each with an exit code
    v1         the gRPC contract, generated from proto/gateway/v1
    product    product.yaml -> frozen values, or every violation at once        pure
    decide     a score -> the action with the least expected cost              pure
    model      ONNX models: sessions, features, generations
    serve      the hall: admit, encode, infer, decide, record, reply
    journal    the record of every call, and the only door between the wings
    demo       a world of simulated payments with delayed labels
    cli        one file a verb
"""
