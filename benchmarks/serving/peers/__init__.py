"""The servers that ours is measured beside, all with the same model.

Each script is started as `python -m benchmarks.serving.peers.NAME PORT FOLDER ROWS` by an interpreter of its own.
`FOLDER` is for its temporary files; `ROWS`: how many rows each request has, for those that must know.
"""
