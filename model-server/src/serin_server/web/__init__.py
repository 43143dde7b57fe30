"""HTTP: a raw ASGI application, and the uvicorn server that drains before it stops."""
