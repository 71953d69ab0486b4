"""Check what pip cannot install, before anything is installed: the Python version and system libraries.

Runs on any Python from 3.6 and needs nothing. Exits 1 with the package to install where something is missing.
"""

import ctypes
import os
import shutil
import sys

NEEDED = (3, 11)
LIBRARIES = {"libgomp.so.1": "libgomp1 (Debian, Ubuntu), libgomp (Fedora), libomp (macOS)"}
FREE_MB = 2_500


def problems() -> "list[str]":
    found = []
    if sys.version_info < NEEDED:
        found.append(f"{sys.executable} is too old: Flyball needs Python 3.11 or newer; try make PYTHON=python3.11")
    if sys.platform.startswith("linux"):
        for library, package in LIBRARIES.items():
            try:
                ctypes.CDLL(library)
            except OSError:
                found.append(f"the system library {library} is missing (LightGBM needs it): install {package}")
    free = shutil.disk_usage(os.getcwd()).free // 1_000_000
    if free < FREE_MB:
        found.append(f"only {free} MB are free here; the environment and the demo need about {FREE_MB} MB")
    return found


if __name__ == "__main__":
    messages = problems()
    for message in messages:
        sys.stderr.write(f"pre-flight: {message}\n")
    sys.exit(1 if messages else 0)
