"""The demonstration: a simulated stream of card payments that drives a running platform through the whole loop."""
