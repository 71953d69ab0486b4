"""A conformance kit for the Open Inference Protocol (v2) over HTTP; README.md says how to run it."""
