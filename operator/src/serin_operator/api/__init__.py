"""The resource, typed: what a user asks for (`spec`) and what Serin has done so far (`status`)."""

GROUP = "serin.dev"
VERSION = "v1alpha1"
PLURAL = "modeldeployments"
KIND = "ModelDeployment"
API_VERSION = f"{GROUP}/{VERSION}"

MANAGED_BY = "serin"
LABEL_OWNER = f"{GROUP}/model-deployment"
LABEL_COMPONENT = f"{GROUP}/component"
LABEL_REVISION = f"{GROUP}/revision"
ANNOTATION_RETRY = f"{GROUP}/retry"
ANNOTATION_ROUTE = f"{GROUP}/route"
