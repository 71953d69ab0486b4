"""Watching what is served: input drift against the training profile, and quality from labels that arrive late."""
