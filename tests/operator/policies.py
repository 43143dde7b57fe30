"""A small policy for tests that need no cluster: two metrics, three steps."""

from serin_operator.api.spec import Analysis, Metric, MetricType, Mode, OnInconclusive, Rollout, Step

ACCURACY = Metric("accuracy", MetricType.ACCURACY, margin=0.02)
ERRORS = Metric("errors", MetricType.ERRORS, margin=0.01, bound=0.04)
ANALYSIS = Analysis(
    interval=30,
    false_rollback_rate=0.05,
    false_promotion_rate=0.05,
    prometheus=None,
    label_window=0,
    warm_up=0,
    calibration=0,
    metrics=(ACCURACY, ERRORS),
)
ROLLOUT = Rollout(
    mode=Mode.STEPS,
    steps=(Step(5, 60), Step(25, 60), Step(50, 60)),
    exposure_budget=100,
    max_weight=50,
    max_duration=3600,
    on_inconclusive=OnInconclusive.HOLD,
    paused=False,
    keep_previous=600,
    watch=600,
)
