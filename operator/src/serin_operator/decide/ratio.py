"""Splitting by replicas: how many canary pods beside the stable ones come nearest to a weight, and what that makes."""


def canary_pods(stable: int, weight: int) -> int:
    """How many canary pods, of 1 to `stable`, come nearest to `weight` per cent of all; the fewer of two as near.

    The stable revision keeps all its pods, so that a rollback needs none to start; more than half is out of reach.
    """
    return min(range(1, stable + 1), key=lambda pods: (abs(pods / (stable + pods) - weight / 100), pods))


def percent_of_pods(canary: int, stable: int) -> float:
    """The canary's part of the pods in per cent, to a tenth; 0 without pods."""
    return round(100 * canary / (canary + stable), 1) if canary else 0.0
