// The pinned definitions of tests/chart/test_routes.py; see ../routers.py. No code of it is built.
module serin.dev/tests/cluster/istio

go 1.24.0

require istio.io/api v1.29.2
