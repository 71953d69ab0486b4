"""The few words every room shares. Standard library only."""
