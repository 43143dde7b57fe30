"""The gRPC half of the Open Inference Protocol V2, with health checks and labels.

Only `port` may be imported before the model is loaded: gRPC starts threads, which do not survive a fork.
"""
