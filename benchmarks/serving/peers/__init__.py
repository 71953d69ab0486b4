"""The servers that ours is measured beside. Each script is started as `python -m benchmarks.serving.peers.NAME PORT
FOLDER` by an interpreter of its own, and serves the same model; `FOLDER` is for its temporary files."""
