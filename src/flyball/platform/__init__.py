"""The composition root: settings → wired ingest and control, their processes, and the supervisor over them.

`wiring` names the concrete adapters; `process` runs a core behind its sockets (`python -m flyball.platform control`);
`supervisor` starts the processes and restarts each alone.
"""
