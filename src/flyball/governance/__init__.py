"""Access, the chain of facts, privacy and documentation for compliance. Here so far: facts."""
