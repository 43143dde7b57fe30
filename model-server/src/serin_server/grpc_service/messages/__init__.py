"""Messages of the protocols, written by `make generate` from model-server/proto."""
