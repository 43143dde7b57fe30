"""From an estimator to ONNX: what is converted, and how. Imported by the child process alone, which is thrown away."""

from typing import Any

from onnx import ModelProto
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler

from serin_server.runtime.acceleration.linear import LINEAR_MODELS, convert_linear
from serin_server.runtime.acceleration.trees import TREE_ENSEMBLES, convert_trees, sums_are_exact
from serin_server.runtime.acceleration.unsupported import UnsupportedError

# Smooth functions of their input: there, a difference in the last bit stays one. A step that bins or encodes is none,
# and whether it agrees on all rows cannot be told from some.
_SMOOTH_STEPS = (StandardScaler, MinMaxScaler, MaxAbsScaler, RobustScaler)
_SMOOTH_MODELS = (
    *LINEAR_MODELS,
    LinearDiscriminantAnalysis,
    GaussianNB,
    MLPClassifier,
    MLPRegressor,
)


def convert(estimator: Any) -> tuple[ModelProto, int, bool]:
    """Return a graph and how many of a pipeline's first steps stay in scikit-learn before it, and whether it is exact.

    The graph takes `input` [rows, features] in doubles; its one output is the probabilities [rows, classes] of a
    classifier, else values. Raises UnsupportedError. Types are compared exactly: a subclass may compute anything.
    """
    last = estimator.steps[-1][1] if type(estimator) is Pipeline else estimator
    if type(last) in TREE_ENSEMBLES:
        kept_steps = len(estimator.steps) - 1 if last is not estimator else 0
        return convert_trees(last), kept_steps, sums_are_exact(last)
    if type(estimator) in LINEAR_MODELS:
        return convert_linear(estimator), 0, False
    steps = [step for _, step in estimator.steps[:-1]] if last is not estimator else []
    for part, kinds in ((last, _SMOOTH_MODELS), *((step, _SMOOTH_STEPS) for step in steps)):
        if type(part) not in kinds and part != "passthrough":
            raise UnsupportedError(f"{type(part).__name__} is not among the kinds that are converted")
    return _by_skl2onnx(estimator, last), 0, False


def _by_skl2onnx(estimator: Any, last: Any) -> ModelProto:
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import DoubleTensorType

    features = getattr(estimator, "n_features_in_", None)
    if features is None:
        raise UnsupportedError("it does not say how many features it takes")
    classifies = hasattr(last, "classes_")
    made: ModelProto = to_onnx(
        estimator,
        initial_types=[("input", DoubleTensorType([None, int(features)]))],
        options={id(last): {"zipmap": False}} if classifies else None,
    )
    kept = [output for output in made.graph.output if not classifies or output.name == "probabilities"]
    if len(kept) != 1:
        raise UnsupportedError("its conversion has no single output")
    del made.graph.output[:]
    made.graph.output.extend(kept)
    return made
