"""Replacing one version by another: full replacement, and canary by weight that aborts on errors."""
