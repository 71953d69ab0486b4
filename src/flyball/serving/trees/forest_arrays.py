"""The platform's own format for trees: arrays in an `.npz` file without pickle, and a document that says what they are.

`registry.forests` writes it, from models of scikit-learn, whose own files need their library. Format 1:

- `document`: JSON as bytes: `format` "flyball.forest", `version`, `features`, `classes`, `comparison` ("float64":
  `x <= t`, "float32": `float32(x) <= t`), `link`, `scale`, `divisor`, `complete` (missing values are refused);
- a tree's nodes are `tree_start[i]` to `tree_start[i + 1]` of `left`, `right` (counted within the tree, -1 at leaves),
  `feature`, `threshold`, `missing_left`, `members_right` and `value` (`(nodes, 1)` or `(nodes, classes)`);
- `tree_class`: the class that a tree adds to, -1 where its leaves hold a value for each; `base`: where the sums begin;
- `set_node`, `set_start` and `set_words`: sets of categories by node (counted over all trees), 32 categories a word;
  what is not a whole number is in no set.
"""

from __future__ import annotations

import io
import itertools
import json
import zipfile
from typing import Any

import numpy as np
import numpy.typing as npt

from flyball.serving.trees.ensemble import (
    CATEGORICAL,
    MEMBERS_RIGHT,
    MISSING_LEFT,
    WHOLE,
    Ensemble,
    broken,
    unsupported,
)
from flyball.serving.trees.links import Link, LinkKind
from flyball.serving.trees.tables import Table, join
from flyball.serving.trees.thresholds import rounded_at_most

VERSION = 1
_LINKS = {
    "identity": LinkKind.IDENTITY,
    "sigmoid": LinkKind.SIGMOID,
    "exp": LinkKind.EXP,
    "softmax": LinkKind.SOFTMAX,
}

Arrays = dict[str, npt.NDArray[Any]]


def read(data: bytes) -> Ensemble:
    """Raises `bad_tree_model` for what is no such file, `tree_unsupported` for a later version."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays: Arrays = {name: file[name] for name in file.files}
        document = json.loads(arrays["document"].tobytes())
        if document["format"] != "flyball.forest":
            raise broken(f"it is a file in the format {document['format']!r}")
        if document["version"] != VERSION:
            raise unsupported(f"read version {document['version']} of flyball.forest, only {VERSION}")
        return _ensemble(document, arrays)
    except (KeyError, TypeError, ValueError, IndexError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise broken(f"it is no forest of arrays ({type(error).__name__}: {error})") from None


def _ensemble(document: dict[str, Any], arrays: Arrays) -> Ensemble:
    comparison = document["comparison"]
    if comparison not in ("float32", "float64"):
        raise unsupported(f"know the comparison {comparison!r}")
    if document["link"] not in _LINKS:
        raise unsupported(f"know the link {document['link']!r}")
    threshold = np.asarray(arrays["threshold"], dtype=np.float64)
    sets = _sets(arrays)
    categorical = np.zeros(len(threshold), dtype=bool)
    categorical[[node for node in sets if node >= 0]] = True
    decision = (
        np.where(categorical, CATEGORICAL | WHOLE, 0)
        + np.where(arrays["missing_left"], MISSING_LEFT, 0)
        + np.where(arrays["members_right"] & categorical, MEMBERS_RIGHT, 0)
    )
    moved = rounded_at_most(threshold) if comparison == "float32" else threshold
    start = [int(each) for each in arrays["tree_start"]]
    tables = [
        Table(
            feature=arrays["feature"][begin:end].astype(np.int64),
            threshold=moved[begin:end],
            decision=decision[begin:end].astype(np.uint8),
            left=arrays["left"][begin:end].astype(np.int64),
            right=arrays["right"][begin:end].astype(np.int64),
            value=arrays["value"][begin:end].astype(np.float64),
            sets={node - begin: sets[node] for node in range(begin, end) if node in sets} if sets else {},
        )
        for begin, end in itertools.pairwise(start)
    ]
    nodes, roots, first_leaf, leaf, label = join(tables)
    divisor, scale = float(document["divisor"]), float(document["scale"])
    if not (np.isfinite([divisor, scale]).all() and divisor > 0):
        raise broken(f"its divisor is {divisor} and its scale {scale}")
    return Ensemble(
        features=tuple(str(name) for name in document["features"]),
        classes=int(document["classes"]),
        nodes=nodes,
        roots=roots,
        first_leaf=first_leaf,
        tree_class=arrays["tree_class"].astype(np.int32),
        leaf=leaf,
        label=label,
        base=arrays["base"].astype(np.float64),
        divisor=divisor,
        link=Link(kind=_LINKS[document["link"]], scale=scale),
        single_input=comparison == "float32",
        complete=bool(document["complete"]),
    )


def _sets(arrays: Arrays) -> dict[int, npt.NDArray[np.uint32]]:
    start = [int(each) for each in arrays["set_start"]]
    words = arrays["set_words"].astype(np.uint32)
    return {
        int(node): words[begin:end] for node, begin, end in zip(arrays["set_node"], start[:-1], start[1:], strict=True)
    }
