"""The Open Inference Protocol: scores for those who ask a model and want no decision.

inference   inference.GRPCInferenceService, on threads beside the hall
offered     the models that it serves, by name
tensors     its requests -> arrays, and outputs -> its responses                  pure
"""
