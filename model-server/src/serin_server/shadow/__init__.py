"""Answers of two revisions to the same request, put together: what is known of a canary that gets copies of requests.

The router marks a request of which the canary gets a copy, and both copies have one request id. Each server keeps its
answers to marked requests for a while (`answers`). The operator carries what stable's servers tell to the canary's,
which find the pairs and count them (`pairs`). Nothing depends on all of it arriving: what is lost is not counted.
"""
