"""Linear models as ONNX, in doubles and of a few operators. Imported by the child process alone.

skl2onnx writes them as well, but its import takes longer than all else that is done for a small model.
"""

from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper
from sklearn.linear_model import (
    BayesianRidge,
    ElasticNet,
    Lasso,
    LinearRegression,
    LogisticRegression,
    LogisticRegressionCV,
    Ridge,
)

from serin_server.runtime.acceleration.unsupported import UnsupportedError

CLASSIFIERS = (LogisticRegression, LogisticRegressionCV)
REGRESSIONS = (LinearRegression, Ridge, Lasso, ElasticNet, BayesianRidge)
LINEAR_MODELS = (*CLASSIFIERS, *REGRESSIONS)


def convert_linear(estimator: Any) -> ModelProto:
    """One output of doubles: `probabilities` [rows, classes], or `value` [rows, 1]. Raises UnsupportedError."""
    weights = estimator.coef_
    if not isinstance(weights, np.ndarray):
        raise UnsupportedError("its coefficients are sparse")
    classifies = isinstance(estimator, CLASSIFIERS)
    if weights.ndim != (2 if classifies else 1):
        raise UnsupportedError("it has several targets")
    weights = np.atleast_2d(weights).astype(np.float64)
    scores, features = weights.shape
    constants = {
        "weights": np.ascontiguousarray(weights.T),
        "intercept": np.broadcast_to(np.asarray(estimator.intercept_, np.float64), (scores,)),
    }
    result = "score" if classifies else "value"
    nodes = [
        helper.make_node("MatMul", ["input", "weights"], ["product"]),
        helper.make_node("Add", ["product", "intercept"], [result]),
    ]
    width = scores
    if classifies:
        result = "probabilities"
        if scores == 1:
            width = 2
            constants["one"] = np.ones(1)
            nodes += [
                helper.make_node("Sigmoid", ["score"], ["second"]),
                helper.make_node("Sub", ["one", "second"], ["first"]),
                helper.make_node("Concat", ["first", "second"], [result], axis=1),
            ]
        else:
            nodes.append(helper.make_node("Softmax", ["score"], [result], axis=1))
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("input", TensorProto.DOUBLE, [None, features])],
        [helper.make_tensor_value_info(result, TensorProto.DOUBLE, [None, width])],
        [numpy_helper.from_array(np.ascontiguousarray(values), name) for name, values in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
