"""ModelDeployments that the API server refuses or accepts, and words of its answers that tell a user what to write."""

from typing import Any

from tests.chart.tools import Manifest

CPU = {"averageUtilization": 70}
HASH = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
LATENCY_BOUNDS = [
    *("0.1ms", "0.25ms", "0.5ms", "1ms", "2ms", "2.5ms", "5ms", "7.5ms"),
    *("10ms", "15ms", "20ms", "25ms", "30ms", "40ms", "50ms", "75ms"),
    *("100ms", "150ms", "200ms", "250ms", "300ms", "400ms", "500ms", "750ms"),
    *("1s", "1.5s", "2s", "3s", "5s", "10s", "30s"),
]


# What the model server counts errors of regressions by: 1, 2 and 5 times the powers of ten.
ERROR_BOUNDS = [float(f"{digit}e{power}") for power in range(-6, 6) for digit in (1, 2, 5)] + [1e6]
PUBLIC_KEY = "-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n"
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
METRIC_DEFAULTS = {"tolerance": 0, "role": "GuardAndGate", "goal": "NonInferior", "weight": 1}


def model_deployment(name: str = "iris", **spec: Any) -> Manifest:
    """The smallest one with parts of its spec replaced."""
    return {
        "apiVersion": "serin.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name},
        "spec": {"model": {"uri": "https://models.example.com/iris.joblib"}, **spec},
    }


def uri(text: str, **model: Any) -> Manifest:
    return model_deployment(model={"uri": text, **model})


def model(**fields: Any) -> Manifest:
    return uri("https://models.example.com/iris.joblib", **fields)


def server(**fields: Any) -> Manifest:
    return model_deployment(server=fields)


def autoscaled(**fields: Any) -> Manifest:
    return server(autoscaling=fields)


def payload_log(claim: str | None = "payloads", **fields: Any) -> Manifest:
    return server(payloadLog=fields if claim is None else {"claim": claim, **fields})


def payload_log_beside(address: str) -> Manifest:
    """A model from this address, and a log on the claim "payloads"."""
    return model_deployment(model={"uri": address}, server={"payloadLog": {"claim": "payloads", "exclude": []}})


def pods(**fields: Any) -> Manifest:
    return server(podTemplate=fields)


def traffic(**fields: Any) -> Manifest:
    return model_deployment(traffic=fields)


def gateway(**fields: Any) -> Manifest:
    return traffic(router={"type": "GatewayAPI", "gatewayAPI": {"parentRefs": [{"name": "public"}], **fields}})


OWN_ROUTE = {"routeRef": {"name": "iris-public"}}
AT_GATEWAYS: dict[str, Any] = {
    "traffic": {"router": {"type": "GatewayAPI", "gatewayAPI": {"parentRefs": [{"name": "public"}]}}}
}


def rollout(**fields: Any) -> Manifest:
    return model_deployment(rollout=fields)


def steps(*weights: int) -> Manifest:
    return rollout(steps=[{"weight": weight} for weight in weights])


def analysis(**fields: Any) -> Manifest:
    return model_deployment(analysis=fields)


def metric(**fields: Any) -> Manifest:
    return analysis(metrics=[{"name": "errors", "margin": 0.01, **fields}])


def typed(type_: str, **fields: Any) -> Manifest:
    return metric(name="judged", type=type_, **fields)


def queries(failures: str, trials: str = 'orders_total{revision="$revision"}') -> Manifest:
    return typed("custom", queries={"failures": failures, "trials": trials})


def without_model() -> Manifest:
    manifest = model_deployment()
    del manifest["spec"]["model"]
    return manifest


NOT_A_SERVICE = "use at most 40 characters, lower-case letters, digits and '-'"
PROFILE = "pvc://models/iris.profile.json"
PASSWORD = "must not hold a user name or password"
REQUESTS = "must not be more than resources.limits."
LADDER = "within must be 1, 2 or 5 times a power of ten from 0.000001 to 1000000"
REVISION = "a query must count one revision by $revision"
RATE = "a query must be of counters as they are, without rate, irate"
GUARD: Manifest = {"name": "restarts", "margin": 0.01, "role": "Guard"}

# What is refused, and words of the answer that tell the user what to write.
REFUSED: dict[str, tuple[Manifest, str]] = {
    # Names
    "a name too long for a Service": (model_deployment("a" * 41), NOT_A_SERVICE),
    "a name that begins with a digit": (model_deployment("4cast"), "metadata.name '4cast' cannot name a Service"),
    "a name with a dot": (model_deployment("iris.v2"), NOT_A_SERVICE),
    # The model
    "no model": (without_model(), "spec.model: Required value"),
    "a model without an address": (model_deployment(model={"version": "v1"}), "spec.model.uri: Required value"),
    "an empty address": (uri(""), "must begin with https://, http:// or pvc://"),
    "a scheme that is not read": (uri("s3://bucket/iris.joblib"), "must begin with https://, http:// or pvc://"),
    "an upper-case scheme": (uri("HTTPS://models.example.com/iris"), "must begin with https://, http:// or pvc://"),
    "an address without a host": (uri("https:///iris.joblib"), "must name a host and a file"),
    "an address without a file": (uri("https://models.example.com/"), "must name a host and a file"),
    "an address with a space": (uri("https://models.example.com/my iris"), "must name a host and a file"),
    "a password in the address": (uri("https://me:secret@models.example.com/iris"), PASSWORD),
    "a claim without a path": (uri("pvc://models"), "must be pvc://claim/path"),
    "a claim with an empty path": (uri("pvc://models/"), "must be pvc://claim/path"),
    "a claim whose name is none": (uri("pvc://My_Models/iris.joblib"), "must be pvc://claim/path"),
    "a path out of the volume": (uri("pvc://models/../secret"), "must not have '.' or '..' in it"),
    "a path that ends out of the volume": (uri("pvc://models/iris/.."), "must not have '.' or '..' in it"),
    "a path with an empty part": (uri("pvc://models//iris"), "must be pvc://claim/path"),
    "an address beyond 2048 characters": (uri("https://models.example.com/" + "a" * 2048), "Too long"),
    "a format that is not served": (model(format="pickle"), 'supported values: "joblib", "skops", "onnx"'),
    "trusted types for joblib": (model(trustedTypes=["a.B"]), "model.trustedTypes is for the format skops only"),
    "a profile without a digest": (model(profile={"uri": PROFILE}), "spec.model.profile.sha256: Required value"),
    "a profile with half a digest": (model(profile={"uri": PROFILE, "sha256": "ab"}), "profile.sha256 must be 64"),
    "a profile from nowhere": (model(profile={"uri": "s3://p", "sha256": "0" * 64}), "profile.uri must be http://"),
    "a profile out of the volume": (
        model(profile={"uri": "pvc://models/../p", "sha256": "0" * 64}),
        "must not have '.' or '..' in it",
    ),
    "a drift that never alarms": (analysis(drift={"falseAlarmRate": 0}), "falseAlarmRate must be more than 0"),
    "a drift that tolerates all": (analysis(drift={"tolerance": 1}), "tolerance must be from 0 to less than 1"),
    "a drift by the second": (analysis(drift={"period": "1s"}), "drift.period must be a duration from 1m to 720h"),
    "a signature by nobody": (model(signature={}), "needs one of publicKey and certificateChain"),
    "a signature by two": (
        model(signature={"publicKey": PUBLIC_KEY, "certificateChain": CERTIFICATE}),
        "needs one of publicKey and certificateChain, and not both",
    ),
    "a key that is a file's name": (model(signature={"publicKey": "key.pub"}), "must be a public key in PEM"),
    "a private key": (
        model(signature={"publicKey": PUBLIC_KEY.replace("PUBLIC", "EC PRIVATE")}),
        "must be a public key in PEM",
    ),
    "a chain that is a key": (model(signature={"certificateChain": PUBLIC_KEY}), "must be certificates in PEM"),
    "a signature outside its volume": (
        model(signature={"publicKey": PUBLIC_KEY, "uri": "pvc://models/../m.sig"}),
        "the path in a pvc:// model.signature.uri must not have",
    ),
    "a signature with credentials": (
        model(signature={"publicKey": PUBLIC_KEY, "uri": "https://a:b@example.com/m.sig"}),
        "model.signature.uri must be",
    ),
    "a model with a query and a signature beside it": (
        uri("https://models.example.com/iris.joblib?v=1", signature={"publicKey": PUBLIC_KEY}),
        "model.signature.uri is needed where model.uri has a query",
    ),
    "a trusted type without a module": (model(format="skops", trustedTypes=["B"]), "a module's path and a name"),
    "too many processes": (server(processes=17), "should be less than or equal to 16"),
    "a sample of more than all": (server(accessLog={"sample": 1.5}), "should be less than or equal to 1"),
    "an unknown acceleration": (server(accelerate="Always"), 'supported values: "Auto", "Never"'),
    "a payload log of no claim": (payload_log(claim=None, exclude=[]), "payloadLog.claim: Required value"),
    "a payload log to no claim's name": (payload_log(claim="A_B", exclude=[]), "the name of a PersistentVolumeClaim"),
    "a payload log that says nothing of features": (payload_log(), "needs one of include and exclude"),
    "a payload log that says both": (payload_log(include=["a"], exclude=["b"]), "needs one of include and exclude"),
    "a payload log of nothing": (payload_log(sample=0, exclude=[]), "more than 0 and at most 1"),
    "a payload log of more than all": (payload_log(sample=1.5, exclude=[]), "more than 0 and at most 1"),
    "a payload log without room": (payload_log(maxSizeMiB=1, exclude=[]), "greater than or equal to 16"),
    "a payload log on the model's claim": (
        payload_log_beside("pvc://payloads/iris.joblib"),
        "must not be the claim that the model is read from",
    ),
    "a digest with its prefix": (model(sha256=f"sha256:{HASH[:57]}"), "64 lower-case hexadecimal digits"),
    "a digest in upper case": (model(sha256=HASH.upper()), "64 lower-case hexadecimal digits"),
    "a short digest": (model(sha256=HASH[:63]), "64 lower-case hexadecimal digits"),
    "an empty version": (model(version=""), "model.version must be 1 to 63 letters, digits"),
    "a version with a space": (model(version="May 1"), "model.version must be 1 to 63 letters, digits"),
    "a version that is a number": (model(version=1.5), "must be of type string"),
    "a secret for a claim": (uri("pvc://models/iris", secretRef={"name": "store"}), "leave secretRef out"),
    "a secret without a name": (model(secretRef={}), "spec.model.secretRef.name: Required value"),
    "a secret whose name is none": (model(secretRef={"name": "My Secret"}), "must be the name of a Secret"),
    # The server
    "no replicas": (server(replicas=0), "greater than or equal to 1"),
    "too many replicas": (server(replicas=101), "less than or equal to 100"),
    "autoscaling without a maximum": (autoscaled(cpu=CPU), "maxReplicas: Required value"),
    "autoscaling by nothing": (autoscaled(maxReplicas=3), "needs something to scale by, cpu or requestsInFlight"),
    "autoscaling from nothing": (autoscaled(minReplicas=0, maxReplicas=3, cpu=CPU), "greater than or equal to 1"),
    "autoscaling upside down": (
        autoscaled(minReplicas=4, maxReplicas=3, cpu=CPU),
        "minReplicas must not be more than maxReplicas",
    ),
    "autoscaling by CPU that is not requested": (
        server(autoscaling={"maxReplicas": 3, "cpu": CPU}, resources={"requests": {"memory": "1Gi"}}),
        "set server.resources.requests.cpu, such as 500m",
    ),
    "autoscaling by no requests in flight": (
        autoscaled(maxReplicas=3, requestsInFlight={"averageValue": 0}),
        "greater than or equal to 1",
    ),
    "an empty image": (server(image=""), "leave it out to use the operator's default"),
    "an image with a space": (server(image="serin server"), "must be an image without spaces"),
    "an env name twice": (server(env=[{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]), "Duplicate value"),
    "an env name of Serin's": (server(env=[{"name": "SERIN_X", "value": ""}]), "use another name"),
    "an env name with a dash": (server(env=[{"name": "MY-VAR", "value": ""}]), "such as OMP_NUM_THREADS"),
    "an env variable without a value": (server(env=[{"name": "A"}]), "spec.server.env[0].value: Required value"),
    "a quantity that is none": (server(resources={"limits": {"memory": "lots"}}), "limits.memory in body should match"),
    "a fraction without quotes": (server(resources={"requests": {"cpu": 0.5}}), "must be of type integer,string"),
    "a negative quantity": (server(resources={"requests": {"cpu": -1}}), "greater than or equal to 0"),
    "more CPU asked for a router than allowed": (
        traffic(router={"resources": {"limits": {"cpu": "10m"}}}),
        "resources.requests.cpu " + REQUESTS + "cpu (the request is 50m",
    ),
    "more CPU asked for than allowed": (
        server(resources={"requests": {"cpu": 2}, "limits": {"cpu": "1500m"}}),
        "resources.requests.cpu " + REQUESTS + "cpu",
    ),
    "less memory allowed than asked for by default": (
        server(resources={"limits": {"memory": "128Mi"}}),
        "resources.requests.memory " + REQUESTS + "memory (the request is 256Mi",
    ),
    "a timeout that is no duration": (server(readyTimeout="5 minutes"), "such as 90s, 5m or 1h30m, not '5 minutes'"),
    "a timeout without a unit": (server(readyTimeout="300"), "not '300'"),
    "a timeout in days": (server(readyTimeout="1d"), "not '1d'"),
    "a negative timeout": (server(readyTimeout="-5m"), "not '-5m'"),
    "a timeout beyond a day": (server(readyTimeout="25h"), "at most 24h"),
    "a timeout beyond any clock": (server(readyTimeout="999999h999999h999999"), "at most 24h"),
    "a label of Serin's": (pods(labels={"serin.dev/revision": "x"}), "use other keys"),
    "a label value with a space": (pods(labels={"team": "my team"}), "a label's value must be letters"),
    "an annotation of Serin's": (pods(annotations={"serin.dev/route": "x"}), "use other keys"),
    "a toleration of everything by value": (pods(tolerations=[{"operator": "Equal"}]), "must have operator Exists"),
    "a toleration with a needless value": (
        pods(tolerations=[{"key": "gpu", "operator": "Exists", "value": "yes"}]),
        "leave value out, or use operator Equal",
    ),
    "a toleration's time without its effect": (
        pods(tolerations=[{"key": "gpu", "value": "yes", "effect": "NoSchedule", "tolerationSeconds": 5}]),
        "set effect to NoExecute",
    ),
    # Traffic
    "a router that is none": (traffic(router={"type": "Nginx"}), 'supported values: "Embedded", "GatewayAPI", "Istio"'),
    "the Gateway API without a Gateway": (traffic(router={"type": "GatewayAPI"}), "must name a Gateway"),
    "the Gateway API with no Gateways": (gateway(parentRefs=[]), "should have at least 1 items"),
    "the Gateway API with a Gateway and a route of one's own": (
        gateway(routeRef={"name": "iris-public"}),
        "needs either parentRefs, for a route of Serin's, or routeRef",
    ),
    "the Gateway API with neither": (
        traffic(router={"type": "GatewayAPI", "gatewayAPI": {}}),
        "needs either parentRefs, for a route of Serin's, or routeRef",
    ),
    "host names for a route of one's own": (
        traffic(router={"type": "GatewayAPI", "gatewayAPI": {**OWN_ROUTE, "hostnames": ["iris.example.com"]}}),
        "with routeRef they are in your own",
    ),
    "testers in a route of one's own": (
        traffic(
            router={"type": "GatewayAPI", "gatewayAPI": OWN_ROUTE},
            testers={"header": {"name": "x-tester", "value": "yes"}},
        ),
        "traffic.testers needs a rule that a route of your own does not get",
    ),
    "a shadow in a route of one's own": (
        model_deployment(
            traffic={"router": {"type": "GatewayAPI", "gatewayAPI": OWN_ROUTE}}, rollout={"shadow": {"percent": 100}}
        ),
        "rollout.shadow needs a rule that a route of your own does not get",
    ),
    "a Gateway without a name": (gateway(parentRefs=[{"namespace": "gateways"}]), "parentRefs[0].name: Required value"),
    "a host name with a scheme": (gateway(hostnames=["https://iris.example.com"]), "without scheme and port"),
    "a gRPC host name with a port": (gateway(grpc={"hostnames": ["iris.example.com:443"]}), "without scheme and port"),
    "copies of requests from a router that makes none": (
        model_deployment(
            traffic={"router": {"type": "Istio"}}, rollout={"strategy": "Shadow", "shadow": {"percent": 20}}
        ),
        "use traffic.router.type Embedded or GatewayAPI, or leave it out",
    ),
    "copies of a share of the requests from Gateways": (
        model_deployment(**AT_GATEWAYS, rollout={"strategy": "Shadow", "shadow": {"percent": 20}}),
        "rollout.shadow.percent must be 100 for traffic.router.type GatewayAPI",
    ),
    "a ramp within a budget that pods alone would split": (
        model_deployment(traffic={"router": {"type": "ReplicaRatio"}}, rollout={"mode": "Adaptive"}),
        "use another traffic.router.type than ReplicaRatio, or rollout.mode Steps",
    ),
    "too many routers": (traffic(router={"replicas": 11}), "less than or equal to 10"),
    "testers who are nobody": (traffic(testers={}), "should have at least 1 properties"),
    "testers without a value": (traffic(testers={"header": {"name": "x-tester"}}), "header.value: Required value"),
    "testers by a header of the router's": (
        traffic(testers={"header": {"name": "X-Serin-Tester", "value": "1"}}),
        "choose another, such as x-tester",
    ),
    "testers by a cookie of two": (
        traffic(testers={"cookie": {"name": "preview", "value": "on; admin=1"}}),
        "cookie.value in body should match",
    ),
    "testers in a mesh": (
        traffic(router={"type": "Istio"}, testers={"header": {"name": "x-tester", "value": "yes"}}),
        "traffic.testers needs a router that tells requests apart",
    ),
    "sticky callers without a router": (
        traffic(router={"type": "ReplicaRatio"}, sticky={"header": "x-user"}),
        "are the embedded router's: use traffic.router.type Embedded, or leave them out",
    ),
    "a certificate for Gateways": (
        traffic(**AT_GATEWAYS["traffic"], tls={"secretName": "iris-tls"}),
        "are the embedded router's: use traffic.router.type Embedded, or leave them out",
    ),
    "an access log of a mesh": (
        traffic(router={"type": "Istio"}, accessLog={"sample": 0.1}),
        "are the embedded router's: use traffic.router.type Embedded, or leave them out",
    ),
    "testers by a cookie at Gateways": (
        traffic(
            **AT_GATEWAYS["traffic"],
            testers={"cookie": {"name": "preview", "value": "on"}},
        ),
        "use traffic.testers.header",
    ),
    "callers told apart by nothing": (traffic(sticky={}), "needs one of header, cookie and clientAddress"),
    "callers told apart twice": (
        traffic(sticky={"header": "x-user", "cookie": "session"}),
        "needs one of header, cookie and clientAddress",
    ),
    "callers by a header with a space": (traffic(sticky={"header": "x user"}), "header in body should match"),
    "callers told apart by a cookie that is an expression": (
        traffic(sticky={"cookie": "a'=(b"}),
        "cookie in body should match",
    ),
    "a certificate of nowhere": (traffic(tls={}), "secretName: Required value"),
    "a certificate with a path": (traffic(tls={"secretName": "../key"}), "must be the name of a Secret"),
    "an access log of more than all": (traffic(accessLog={"sample": 2}), "should be less than or equal to 1"),
    "a request timeout of zero": (traffic(timeout="0s"), "traffic.timeout must be a duration of at most 1h"),
    "a request timeout beyond an hour": (traffic(timeout="61m"), "not '61m'"),
    "a router with more memory asked for than allowed": (
        traffic(router={"resources": {"requests": {"memory": "1Gi"}, "limits": {"memory": "512Mi"}}}),
        "resources.requests.memory " + REQUESTS + "memory",
    ),
    # The rollout
    "a strategy that is none": (rollout(strategy="Linear"), '"Canary", "BlueGreen", "Shadow", "Recreate"'),
    "a promotion by chance": (rollout(promotion="Sometimes"), 'supported values: "Automatic", "Manual"'),
    "a step's pause that is a time": (rollout(steps=[{"weight": 5, "pause": "10m"}]), "must be of type boolean"),
    "no steps": (rollout(steps=[]), "should have at least 1 items"),
    "too many steps": (steps(*range(1, 22)), "must have at most 20 items"),
    "a step without a weight": (rollout(steps=[{"duration": "60s"}]), "spec.rollout.steps[0].weight: Required value"),
    "a step of nothing": (steps(0, 50), "from 1 to 99 percent"),
    "a step of everything": (steps(50, 100), "the canary is promoted and gets every request"),
    "steps that fall": (steps(5, 50, 25), "must rise from step to step, such as 5, 25, 50"),
    "steps that stand still": (steps(5, 25, 25), "must rise from step to step, such as 5, 25, 50"),
    "a step without time": (rollout(steps=[{"weight": 5, "duration": "0s"}]), "such as 60s, 10m or 1h30m, not '0s'"),
    "a rollout shorter than the default steps": (rollout(maxDuration="2m"), "rollout.maxDuration 2m is not longer"),
    "a rollout as long as its steps": (
        rollout(steps=[{"weight": 5, "duration": "30m"}, {"weight": 50, "duration": "0.5h"}], maxDuration="60m"),
        "raise it or shorten the steps",
    ),
    "a rollout without an end": (rollout(maxDuration="forever"), "such as 90m or 24h, not 'forever'"),
    "an end that promotes": (rollout(onInconclusive="Promote"), 'supported values: "Hold", "Rollback"'),
    "a pause that is a word": (rollout(paused="yes"), "must be of type boolean"),
    "a previous revision kept for ever": (rollout(keepPrevious="721h"), "such as 60s, 10m or 24h, not '721h'"),
    # The analysis
    "labels that come when the rollout is over": (
        model_deployment(rollout={"maxDuration": "23h60m"}, analysis={"labelWindow": "24h"}),
        "analysis.labelWindow 24h is not shorter than rollout.maxDuration 23h60m",
    ),
    "an interval too short": (analysis(interval="500ms"), "from 1s to 5m, such as 5s or 1m, not '500ms'"),
    "an interval too long": (analysis(interval="301s"), "from 1s to 5m"),
    "no false rollbacks at all": (analysis(falseRollbackRate=0), "falseRollbackRate must be more than 0"),
    "a rate in percent": (analysis(falseRollbackRate=5), "such as 0.05"),
    "a coin toss for promotion": (analysis(falsePromotionRate=0.51), "falsePromotionRate must be more than 0"),
    "a Prometheus without a scheme": (analysis(prometheus={"address": "prometheus:9090"}), "such as http://prometheus"),
    "a Prometheus with a password": (analysis(prometheus={"address": "http://me:pw@prometheus:9090"}), PASSWORD),
    "a Prometheus API path": (analysis(prometheus={"address": "http://prometheus:9090/api/v1"}), "Serin adds them"),
    "no metrics": (analysis(metrics=[]), "should have at least 1 items"),
    "a metric that is not known": (metric(name="drift"), "metric drift needs a type: errors, latency, accuracy"),
    "a custom metric by its name alone": (metric(name="custom"), "metric custom needs a type"),
    "a type that is not known": (typed("drift"), 'supported values: "errors", "latency", "accuracy", "precision"'),
    "a metric name with a space": (metric(name="my errors", type="errors"), "such as recall-of-fraud"),
    "a metric name in upper case": (metric(name="Errors", type="errors"), "such as recall-of-fraud"),
    "a metric name beyond 32 characters": (metric(name="a" * 33, type="errors"), "Too long"),
    "too many metrics": (
        analysis(metrics=[{"name": f"m{number}", "type": "errors", "margin": 0.01} for number in range(21)]),
        "must have at most 20 items",
    ),
    "a metric twice": (analysis(metrics=[{"name": "errors", "margin": 0.01}] * 2), "Duplicate value"),
    "a metric without a margin": (analysis(metrics=[{"name": "errors"}]), "margin: Required value"),
    "a margin of nothing": (metric(margin=0), "more than 0 and at most 0.5 (0.01 is one percentage point)"),
    "a margin in percent": (metric(margin=1), "more than 0 and at most 0.5 (0.01 is one percentage point)"),
    "a negative tolerance": (metric(tolerance=-0.01), "a metric's tolerance must be 0 or more"),
    "a tolerance as large as the margin": (metric(tolerance=0.01), "metric errors must be less than its margin"),
    "a bound of nothing": (metric(bound=0), "more than 0 and less than 1 (0.01 allows failures of one percent)"),
    "a bound of everything": (metric(bound=1), "more than 0 and less than 1 (0.01 allows failures of one percent)"),
    "a bound in percent": (metric(bound=5), "more than 0 and less than 1 (0.01 allows failures of one percent)"),
    "a weight of nothing": (metric(weight=0), "for a metric that counts for nothing, set role: Observe"),
    "a weight beyond 1000": (metric(weight=1001), "a metric's weight must be more than 0 and at most 1000"),
    "a role that is none": (metric(role="Guards"), 'supported values: "GuardAndGate", "Guard", "Gate", "Observe"'),
    "a goal that is none": (metric(goal="Better"), 'supported values: "NonInferior", "Superior"'),
    "superiority of what is no gate": (
        analysis(metrics=[{"name": "errors", "margin": 0.01}, GUARD | {"goal": "Superior"}]),
        "goal Superior is for a gate: give metric restarts the role GuardAndGate or Gate",
    ),
    "guards alone": (metric(role="Guard"), "analysis.metrics has no gate, so nothing could ever be promoted"),
    "nothing but observers": (
        analysis(metrics=[GUARD | {"role": "Observe"}, {"name": "errors", "margin": 0.01, "role": "Observe"}]),
        "give one metric the role GuardAndGate or Gate",
    ),
    "latency without its bound": (metric(name="latency"), "metric latency needs slowerThan, the time from which"),
    "latency by another name without its bound": (typed("latency"), "metric judged needs slowerThan"),
    "a bound that the histogram has not": (
        metric(name="latency", slowerThan="260ms"),
        "supported values: " + ", ".join(f'"{bound}"' for bound in LATENCY_BOUNDS),
    ),
    "a time for errors": (metric(slowerThan="250ms"), "slowerThan is for metrics of type latency only"),
    "a time for what is called latency": (
        metric(name="latency", type="errors", slowerThan="250ms"),
        "slowerThan is for metrics of type latency only: leave it out of metric latency",
    ),
    "a class for accuracy": (
        metric(name="accuracy", **{"class": "fraud"}),
        "class is for metrics of type precision, recall and f1 only: leave it out of metric accuracy",
    ),
    "a bound on an average over classes": (
        typed("recall", bound=0.1),
        "a bound is on one class, not on the average over all: give metric judged a class, or leave its bound out",
    ),
    "an empty class": (typed("recall", **{"class": ""}), "at least 1 chars long"),
    "a class that is a number": (typed("recall", **{"class": 1}), "must be of type string"),
    "regression without its bound": (metric(name="regression"), "metric regression needs within, the largest error"),
    "an error's size for accuracy": (
        metric(name="accuracy", within=1),
        "within is for metrics of type regression only: leave it out of metric accuracy",
    ),
    "an error's size that is not counted": (typed("regression", within=0.3), LADDER),
    "an error's size of nothing": (typed("regression", within=0), LADDER),
    "an error's size too small": (typed("regression", within=5e-7), LADDER),
    "an error's size too large": (typed("regression", within=2e6), LADDER),
    "custom without queries": (typed("custom"), "metric judged needs queries, the two PromQL queries that count"),
    "queries for errors": (
        metric(queries={"failures": "a$revision", "trials": "b$revision"}),
        "queries is for metrics of type custom only: leave it out of metric errors",
    ),
    "a query without its trials": (
        typed("custom", queries={"failures": "a$revision"}),
        "spec.analysis.metrics[0].queries.trials: Required value",
    ),
    "an empty query": (queries(""), REVISION),
    "a query of all revisions": (queries("a$revision", "sum(orders_total)"), "queries.trials: Invalid value"),
    "a rate": (queries('sum(rate(refunds_total{revision="$revision"}[5m]))'), RATE),
    "an instant rate": (queries('irate(refunds_total{revision="$revision"}[5m])'), RATE),
    "an increase with a space": (queries('increase (refunds_total{revision="$revision"}[5m])'), RATE),
    "a delta": (queries('delta(refunds{revision="$revision"}[5m])'), RATE),
    "an instant delta": (queries('sum by (x) (idelta(refunds{revision="$revision"}[5m]))'), RATE),
    "a count of changes": (queries('changes(refunds_total{revision="$revision"}[5m])'), RATE),
    "a slope": (queries('1+deriv(refunds{revision="$revision"}[5m])'), RATE),
    "an average over time": (queries('avg_over_time(refunds{revision="$revision"}[5m])'), RATE),
    "a count over time": (queries("a$revision", 'count_over_time(orders{revision="$revision"}[5m])'), RATE),
    "a shadow before a switch": (
        rollout(strategy="BlueGreen", shadow={"percent": 5}),
        "rollout.shadow is for the strategies Canary, before its steps, and Shadow, which switches like BlueGreen",
    ),
    "a shadow of nothing said": (rollout(strategy="Shadow"), "rollout.strategy Shadow needs rollout.shadow"),
    "a shadow without a part": (rollout(shadow={}), "spec.rollout.shadow.percent: Required value"),
    "a shadow of nothing": (rollout(shadow={"percent": 0}), "rollout.shadow.percent must be from 1 to 100 percent"),
    "a shadow of more than all": (rollout(shadow={"percent": 101}), "must be from 1 to 100 percent"),
    "a shadow without time": (rollout(shadow={"percent": 5, "duration": "0s"}), "such as 60s, 10m or 1h30m, not '0s'"),
    "a mode that is none": (rollout(mode="Bandit"), 'supported values: "Steps", "Adaptive"'),
    "no budget": (rollout(exposureBudget=0), "exposureBudget in body should be greater than or equal to 1"),
    "a largest share of nothing": (rollout(maxWeight=0), "maxWeight in body should be greater than or equal to 1"),
    "a largest share of everything": (rollout(maxWeight=100), "maxWeight in body should be less than or equal to 99"),
    "a watch without end": (rollout(watch="for ever"), "from 0s to 720h, such as 10m or 24h, not 'for ever'"),
    "a watch beyond a month": (rollout(watch="721h"), "rollout.watch must be a duration from 0s to 720h"),
    "a negative watch": (rollout(watch="-1s"), "rollout.watch must be a duration from 0s to 720h"),
    "a label window that is not counted": (analysis(labelWindow="2m"), '"0s", "10s", "1m", "5m", "30m", "1h", "6h"'),
    "a negative warm-up": (analysis(warmUp=-1), "warmUp in body should be greater than or equal to 0"),
    "a warm-up beyond 100 readings": (analysis(warmUp=101), "warmUp in body should be less than or equal to 100"),
    "a calibration beyond an hour": (analysis(calibration="61m"), "from 0s to 1h, such as 5m, not '61m'"),
    # What is not there
    "a misspelt field": (model_deployment(rolout={"paused": True}), 'unknown field "spec.rolout"'),
    "a field of a later version": (model(mirror=True), 'unknown field "spec.model.mirror"'),
}  # fmt: skip

ACCEPTED: dict[str, Manifest] = {
    "a name of 40 characters": model_deployment("a" * 40),
    "a name of one letter": model_deployment("a"),
    "plain http with a port and a query": uri("http://models:8000/iris.joblib?version=2"),
    "an address with an @ in its path": uri("https://models.example.com/team@home/iris.joblib"),
    "a claim": uri("pvc://models/iris.joblib"),
    "a claim with a deep path of dots": uri("pvc://models.store/a/b..c/.hidden/v1.2.joblib"),
    "a pinned model of a private store": model(sha256=HASH, version="2024-05-01", secretRef={"name": "store"}),
    "an ONNX model": model(format="onnx"),
    "a model signed by a key": model(signature={"publicKey": PUBLIC_KEY}),
    "a model signed by a certificate": model(
        signature={"certificateChain": CERTIFICATE, "uri": "https://models.example.com/signatures/iris"}
    ),
    "a model with its profile": model(profile={"uri": PROFILE, "sha256": "0" * 64}),
    "a drift of whole weeks": analysis(drift={"falseAlarmRate": 0.001, "tolerance": 0, "period": "168h"}),
    "a skops model with a type of one's own": model(format="skops", trustedTypes=["my_package.steps.Clip"]),
    "autoscaling by CPU": autoscaled(maxReplicas=3, cpu=CPU),
    "autoscaling by both": autoscaled(minReplicas=3, maxReplicas=3, cpu=CPU, requestsInFlight={"averageValue": 4}),
    "autoscaling with a request of one's own": server(
        autoscaling={"maxReplicas": 100, "cpu": CPU}, resources={"requests": {"cpu": "2"}}
    ),
    "a Gateway of another namespace": gateway(
        parentRefs=[{"name": "public", "namespace": "gateways", "sectionName": "https", "port": 443}],
        hostnames=["iris.example.com", "*.models.example.com", "localhost"],
    ),
    "a Gateway for gRPC too": gateway(grpc={"hostnames": ["grpc.example.com"]}),
    "a route of one's own": traffic(router={"type": "GatewayAPI", "gatewayAPI": OWN_ROUTE}),
    "testers by a header at Gateways": traffic(
        **AT_GATEWAYS["traffic"],
        testers={"header": {"name": "X-Tester", "value": "yes"}},
    ),
    "copies of all requests from Gateways": model_deployment(
        **AT_GATEWAYS, rollout={"strategy": "Shadow", "shadow": {"percent": 100}}
    ),
    "a mesh": traffic(router={"type": "Istio"}),
    "a mesh and its ingress": traffic(
        router={"type": "Istio", "istio": {"hosts": ["iris.example.com"], "gateways": ["istio-system/public"]}}
    ),
    "pods alone": traffic(router={"type": "ReplicaRatio"}),
    "a Gateway that is not used yet": traffic(router={"gatewayAPI": {"parentRefs": [{"name": "public"}]}}),
    "several processes": server(processes=4, accessLog={"sample": 0.01}),
    "a model that stays as it is": server(accelerate="Never"),
    "a payload log of all features": payload_log(exclude=[]),
    "a payload log of no feature": payload_log(include=[], sample=1, maxSizeMiB=16),
    "a payload log without private features": payload_log(exclude=["age", "sepal length (cm)"], sample=0.01),
    "a payload log beside a model on another claim": payload_log_beside("pvc://payloads-2/iris.joblib"),
    "a version of 63 characters": model(version="v" * 63),
    "an empty env value": server(env=[{"name": "_a1", "value": ""}]),
    "a GPU": server(resources={"limits": {"nvidia.com/gpu": 1}}),
    "whole and decimal quantities": server(resources={"requests": {"cpu": "0.5", "memory": "1.5Gi"}}),
    "requests equal to limits": server(resources={"requests": {"cpu": "1000m"}, "limits": {"cpu": 1}}),
    "every part of a duration": server(readyTimeout="1h2m3.5s4ms"),
    "a pod of its own kind": pods(
        labels={"team": "a", "empty": ""},
        annotations={"example.com/note": "some text, of any kind"},
        nodeSelector={"pool": "gpu"},
        tolerations=[
            {"operator": "Exists"},
            {"key": "gpu", "value": "yes", "effect": "NoExecute", "tolerationSeconds": 60},
        ],
        affinity={"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
        priorityClassName="high",
        imagePullSecrets=[{"name": "registry"}],
        topologySpreadConstraints=[
            {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule"}
        ],
    ),
    "clients in every way": traffic(
        router={"replicas": 2},
        tls={"secretName": "iris.tls"},
        testers={
            "header": {"name": "X-Tester", "value": "yes, of team A"},
            "cookie": {"name": "p.v_1", "value": "on=1"},
        },
        sticky={"header": "X-User-Id"},
        accessLog={"sample": 0},
    ),
    "callers told apart by a cookie": traffic(sticky={"cookie": "session.id"}),
    "callers told apart by their address": traffic(sticky={"clientAddress": {}}),
    "one step of the whole range": steps(99),
    "twenty steps": steps(*range(1, 21)),
    "a rollout a little longer than its steps": rollout(
        steps=[{"weight": 5, "duration": "30m"}, {"weight": 50, "duration": "0.5h"}], maxDuration="60m1s"
    ),
    "steps of a month": rollout(steps=[{"weight": 50, "duration": "720h"}], maxDuration="2160h"),
    "the shortest interval": analysis(interval="1000ms"),
    "the longest interval": analysis(interval="5m"),
    "the highest rates": analysis(falseRollbackRate=0.5, falsePromotionRate=0.5),
    "a Prometheus under a path": analysis(prometheus={"address": "https://example.com/prometheus/"}),
    "the largest margin": metric(margin=0.5, tolerance=0.499),
    "every metric": analysis(
        metrics=[
            {"name": "errors", "margin": 0.01, "bound": 0.001, "weight": 1000},
            {"name": "latency", "margin": 0.05, "slowerThan": "2.5ms", "bound": 0.999, "weight": 0.001},
            {"name": "accuracy", "margin": 0.02, "tolerance": 0.001, "goal": "Superior", "role": "Gate"},
            {"name": "precision", "margin": 0.02},
            {"name": "recall", "margin": 0.02, "class": "fraud"},
            {"name": "f1", "margin": 0.02, "role": "Observe"},
            {"name": "regression", "margin": 0.02, "within": 0.05},
            GUARD,
            {
                "name": "custom",
                "type": "custom",
                "margin": 0.02,
                "queries": {"failures": "a$revision", "trials": "b$revision"},
            },
        ]
    ),
    "a type twice": analysis(
        metrics=[
            {"name": "slow", "type": "latency", "margin": 0.05, "slowerThan": "100ms"},
            {"name": "very-slow", "type": "latency", "margin": 0.01, "slowerThan": "1s"},
        ]
    ),
    "a name that is another type": metric(name="errors", type="latency", slowerThan="1s"),
    "twenty metrics": analysis(
        metrics=[
            {"name": f"{'m' * 29}-{number}", "type": "recall", "class": "c" * 48, "margin": 0.01}
            for number in range(10, 30)
        ]
    ),
    "counters whose names look like functions": queries(
        'sum by (rate) (increase_total{revision="$revision"}) + error:rate{revision="$revision"}'
    ),
    "a shadow": rollout(strategy="Shadow", shadow={"percent": 100}, maxDuration="2m"),
    "a shadow before the steps": rollout(shadow={"percent": 1, "duration": "720h"}),
    "steps that wait for somebody": rollout(
        steps=[{"weight": 5, "pause": True}, {"weight": 50, "duration": "10m", "pause": True}], promotion="Manual"
    ),
    "a switch after a preview": rollout(strategy="BlueGreen", promotion="Manual"),
    "one after the other": rollout(strategy="Recreate"),
    "an adaptive rollout": rollout(mode="Adaptive", exposureBudget=1, maxWeight=99, watch="720h"),
    "an adaptive rollout shorter than the default steps": rollout(mode="Adaptive", maxDuration="2m", watch="0s"),
    "labels that come within a week": model_deployment(
        rollout={"maxDuration": "169h"}, analysis={"labelWindow": "168h", "warmUp": 100, "calibration": "1h"}
    ),
}
