"""The small HTTP/1.1 core under the key server."""
