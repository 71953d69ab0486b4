"""Serving: the plan, routing, batches, the reply, and the log of predictions."""
