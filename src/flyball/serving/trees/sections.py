"""What a program holds, and where: the compiler writes these sections, and the kernel reads them."""

from __future__ import annotations

# The sections of a program, by their place in its directory.
(
    SHAPE,  # int64: see below
    SCALES,  # float64: divisor, the link's scale
    BASE,  # float64: where a class's sum begins
    FIELDS,  # int32 x6: feature, first threshold, steps, first bucket, buckets, first view (of the next: the end)
    RANGES,  # float64 x2: where the buckets of a field begin, and buckets a unit
    BUCKETS,  # uint16: thresholds before a bucket
    THRESHOLDS,  # float64, padded with infinity
    VIEWS,  # int32 x5: kind, rank of a missing value (of a set: the node's flags), feature, first word, end of words
    WORDS,  # uint32: sets of categories
    COLUMNS,  # int32 x3: view, ranks below the slice, 255 where mirrored
    TREE_PLANES,  # int32: where a small tree's planes begin, and the end
    PLANES,  # int32: where a plane's entries begin, and the end
    ENTRIES,  # uint32 x3: column, bound, mask
    WALK,  # uint32 x3 a step: view, bound, next step; the step after it is the other side's
    WALK_LEAF,  # int32: the leaf of a step, counted within its tree
    ROOTS,  # int32: a tree's first step
    DEPTHS,  # int32: a tree's greatest depth
    BY_DEPTH,  # int32: trees, deepest first
    DEEPER,  # int32: how many trees are deeper than a level
    LARGE,  # int32: the trees that are walked in blocks
    JOBS,  # int32 x4: tree, its place among small or large trees, 1 where large, first leaf of the class
    CLASS_JOBS,  # int32: where a class's jobs begin, and the end
    LEAVES,  # float64 or float32: leaves in the kernel's order, a class after another
    LABELS,  # int32: a leaf's number in its library
    FIRST_LEAF,  # int32: where a tree's leaves begin
) = range(25)
SECTIONS = 25

# SHAPE: what stands where.
CLASSES, TREES, SMALL_TREES, VIEW_COUNT, COLUMN_COUNT, FEW, SINGLE, LINK = range(8)

NEVER = 2**31 - 1  # a bound that no rank reaches
