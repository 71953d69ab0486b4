"""Speed, side by side with peers or limits: `make bench NAME=features`. Results go to `docs/benchmarks.md`."""
