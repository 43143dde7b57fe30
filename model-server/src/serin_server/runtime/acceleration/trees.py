"""Trees and their ensembles as ONNX's TreeEnsemble, in double precision throughout.

skl2onnx writes the older operators, whose answers are in single precision. TreeEnsemble (ai.onnx.ml 5) compares and
adds doubles, in scikit-learn's order, so that most models answer to the last bit as before.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier, ExtraTreeRegressor

from serin_server.protocol.datatypes import Array
from serin_server.runtime.acceleration.unsupported import UnsupportedError

_SINGLE = (DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier, ExtraTreeRegressor)
_FORESTS = (RandomForestClassifier, RandomForestRegressor, ExtraTreesClassifier, ExtraTreesRegressor)
_BOOSTED = (GradientBoostingClassifier, GradientBoostingRegressor)
_HISTOGRAM = (HistGradientBoostingClassifier, HistGradientBoostingRegressor)
TREE_ENSEMBLES = (*_SINGLE, *_FORESTS, *_BOOSTED, *_HISTOGRAM)

# Nodes and leaves in all. Above it the graph takes hundreds of megabytes beside the estimator.
MOST_NODES = 5_000_000


@dataclass(frozen=True)
class Tree:
    """Arrays [nodes]; `leaf` is boolean, `value` counts at leaves. `target` is the score that the leaves add to."""

    feature: Array
    threshold: Array
    left: Array
    right: Array
    leaf: Array
    value: Array
    target: int


def convert_trees(estimator: Any) -> ModelProto:
    """One output of doubles: `probabilities` [rows, classes], or `value` [rows, 1]. Raises UnsupportedError."""
    trees = list(_trees(estimator))
    if sum(tree.feature.size for tree in trees) > MOST_NODES:
        raise UnsupportedError(f"it has more than {MOST_NODES} nodes")
    targets = max(tree.target for tree in trees) + 1
    # scikit-learn rounds rows to single precision for these, before it compares with doubles.
    rounds = not isinstance(estimator, _HISTOGRAM)
    nodes = []
    if rounds:
        nodes.append(helper.make_node("Cast", ["input"], ["single"], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Cast", ["single"], ["rows"], to=TensorProto.DOUBLE))
    nodes.append(_ensemble(trees, "rows" if rounds else "input", "sum", targets))
    constants: list[TensorProto] = []
    output, width = _finish(estimator, nodes, constants, targets)
    graph = helper.make_graph(
        nodes,
        "trees",
        [helper.make_tensor_value_info("input", TensorProto.DOUBLE, [None, int(estimator.n_features_in_)])],
        [helper.make_tensor_value_info(output, TensorProto.DOUBLE, [None, width])],
        constants,
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 5)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def sums_are_exact(estimator: Any) -> bool:
    """Whether a forest's votes are whole numbers, as in trees grown until their leaves are pure.

    Doubles add those without rounding, so that the ties between classes are the same in any order.
    """
    if not isinstance(estimator, (*_SINGLE, *_FORESTS)) or not hasattr(estimator, "classes_"):
        return False
    return all(bool(np.isin(tree.value[tree.leaf], (0.0, 1.0)).all()) for tree in _trees(estimator))


def thresholds(estimator: Any) -> list[tuple[Array, Array]]:
    """Per tree, the features [inner nodes] that it compares and the thresholds [inner nodes]."""
    found = []
    for tree in _trees(estimator):
        if tree.target == 0:  # the other targets of a forest are the same trees again
            found.append((tree.feature[~tree.leaf], tree.threshold[~tree.leaf]))
    return found


def _trees(estimator: Any) -> Iterable[Tree]:
    if isinstance(estimator, _HISTOGRAM):
        return _histogram_trees(estimator)
    if isinstance(estimator, _BOOSTED):
        return [
            _tree(member.tree_, member.tree_.value[:, 0, 0] * estimator.learning_rate, target)
            for stage in estimator.estimators_
            for target, member in enumerate(stage)
        ]
    if estimator.n_outputs_ != 1:
        raise UnsupportedError("it has several targets")
    members = estimator.estimators_ if isinstance(estimator, _FORESTS) else [estimator]
    classes = int(estimator.n_classes_) if hasattr(estimator, "n_classes_") else 1
    # A leaf adds to one score only, so each tree comes once for every class; of two classes, the second alone will do.
    columns = [1] if classes == 2 else range(classes)
    return [
        _tree(member.tree_, member.tree_.value[:, 0, column], target)
        for member in members
        for target, column in enumerate(columns)
    ]


def _tree(tree: Any, value: Array, target: int) -> Tree:
    return Tree(
        tree.feature, tree.threshold, tree.children_left, tree.children_right, tree.children_left == -1, value, target
    )


def _histogram_trees(estimator: Any) -> Iterable[Tree]:
    if getattr(estimator, "is_categorical_", None) is not None:
        raise UnsupportedError("it has categorical features")
    for stage in estimator._predictors:
        for target, member in enumerate(stage):
            nodes = member.nodes
            yield Tree(
                nodes["feature_idx"],
                nodes["num_threshold"],
                nodes["left"].astype(np.int64),
                nodes["right"].astype(np.int64),
                nodes["is_leaf"].astype(bool),
                nodes["value"],
                target,
            )


def _ensemble(trees: list[Tree], rows: str, output: str, targets: int) -> Any:
    """The operator's arrays hold the inner nodes of all trees, and their leaves apart from them."""
    columns: dict[str, list[Array]] = {
        name: [] for name in ("feature", "split", "left", "left_leaf", "right", "right_leaf", "target", "weight")
    }
    roots, inner_count, leaf_count = [], 0, 0
    for tree in map(_with_a_root, trees):
        inner, leaves = np.flatnonzero(~tree.leaf), np.flatnonzero(tree.leaf)
        place = np.empty(tree.leaf.size, np.int64)
        place[inner] = inner_count + np.arange(inner.size)
        place[leaves] = leaf_count + np.arange(leaves.size)
        roots.append(inner_count)
        left, right = tree.left[inner], tree.right[inner]
        columns["feature"].append(tree.feature[inner])
        columns["split"].append(tree.threshold[inner])
        columns["left"].append(place[left])
        columns["left_leaf"].append(tree.leaf[left])
        columns["right"].append(place[right])
        columns["right_leaf"].append(tree.leaf[right])
        columns["target"].append(np.full(leaves.size, tree.target))
        columns["weight"].append(tree.value[leaves])
        inner_count += inner.size
        leaf_count += leaves.size

    def integers(name: str) -> list[int]:
        found: list[int] = np.concatenate(columns[name]).astype(np.int64).tolist()
        return found

    def doubles(name: str) -> TensorProto:
        return numpy_helper.from_array(np.concatenate(columns[name]).astype(np.float64), name)

    return helper.make_node(
        "TreeEnsemble",
        [rows],
        [output],
        domain="ai.onnx.ml",
        n_targets=targets,
        aggregate_function=1,  # sum
        post_transform=0,  # none
        tree_roots=roots,
        nodes_featureids=integers("feature"),
        nodes_splits=doubles("split"),
        nodes_modes=numpy_helper.from_array(np.zeros(inner_count, np.uint8), "modes"),  # <=
        nodes_truenodeids=integers("left"),
        nodes_trueleafs=integers("left_leaf"),
        nodes_falsenodeids=integers("right"),
        nodes_falseleafs=integers("right_leaf"),
        leaf_targetids=integers("target"),
        leaf_weights=doubles("weight"),
    )


def _with_a_root(tree: Tree) -> Tree:
    """The operator has no tree of a single leaf: such a one gets a node whose two sides are alike."""
    if tree.leaf.size > 1:
        return tree
    return Tree(
        feature=np.zeros(3, np.int64),
        threshold=np.zeros(3),
        left=np.array([1, -1, -1]),
        right=np.array([2, -1, -1]),
        leaf=np.array([False, True, True]),
        value=np.repeat(tree.value, 3),
        target=tree.target,
    )


def _finish(estimator: Any, nodes: list[Any], constants: list[TensorProto], targets: int) -> tuple[str, int]:
    """Add what follows the sum of the trees, and return the output's name and width."""

    def constant(name: str, values: Any) -> str:
        constants.append(numpy_helper.from_array(np.asarray(values, np.float64), name))
        return name

    def step(operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def of_the_second(share: str) -> tuple[str, int]:
        step("Sub", [constant("one", [1.0]), share], "first")
        return step("Concat", ["first", share], "probabilities", axis=1), 2

    classifies = hasattr(estimator, "classes_")
    if isinstance(estimator, (*_SINGLE, *_FORESTS)):
        count = constant("count", [len(estimator.estimators_) if isinstance(estimator, _FORESTS) else 1])
        if classifies and estimator.n_classes_ == 2:
            return of_the_second(step("Div", ["sum", count], "second"))
        return step("Div", ["sum", count], "probabilities" if classifies else "value"), targets
    base = constant("base", _baseline(estimator, targets))
    if not classifies:
        if getattr(estimator, "loss", None) in ("poisson", "gamma"):
            return step("Exp", [step("Add", ["sum", base], "score")], "value"), 1
        return step("Add", ["sum", base], "value"), 1
    if estimator.loss != "log_loss":
        raise UnsupportedError(f"its loss is {estimator.loss}")
    score = step("Add", ["sum", base], "score")
    if targets > 1:
        return step("Softmax", [score], "probabilities", axis=1), targets
    return of_the_second(step("Sigmoid", [score], "second"))


def _baseline(estimator: Any, targets: int) -> Array:
    if isinstance(estimator, _HISTOGRAM):
        return np.asarray(estimator._baseline_prediction, np.float64).reshape(1, targets)
    if estimator.init not in (None, "zero"):
        raise UnsupportedError("its first prediction is a model of its own")
    # The first prediction is the same for every row.
    row = np.zeros((1, estimator.n_features_in_), np.float32)
    return np.asarray(estimator._raw_predict_init(row), np.float64).reshape(1, targets)
