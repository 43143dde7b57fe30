"""HTTP: a small HTTP/1.1 server on httptools, the routes, and a way out that loses no request."""
