"""The pod that reads a model once to learn its digest, where credentials, volumes and memory are not the operator's."""

from serin_operator.api.spec import Model
from serin_operator.build.owner import RESOLVER, Images, Manifest, Owner
from serin_operator.build.pods import container_security, pod_basics
from serin_operator.build.servers import claim_mounts, claim_volumes, fetch_credentials


def pod(owner: Owner, name: str, model: Model, image: str, images: Images) -> Manifest:
    """Runs `digest` until it succeeds; the kubelet spaces the tries. Its answer is the termination message."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": owner.metadata(name, owner.labels(RESOLVER)),
        "spec": pod_basics()
        | {
            "restartPolicy": "OnFailure",
            "containers": [
                {
                    "name": "digest",
                    "image": image,
                    "imagePullPolicy": images.pull_policy,
                    "args": ["digest", "--uri", model.uri],
                    "env": fetch_credentials(model.secret),
                    "resources": {
                        "requests": {"cpu": "50m", "memory": "64Mi"},
                        "limits": {"memory": "256Mi"},
                    },
                    "securityContext": container_security(),
                    "volumeMounts": [
                        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - an emptyDir of the pod's own
                        *claim_mounts(model.uri),
                    ],
                }
            ],
            "volumes": [{"name": "tmp", "emptyDir": {}}, *claim_volumes(model.uri)],
        },
    }
